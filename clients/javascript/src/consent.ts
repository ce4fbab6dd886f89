/** `<mlc-consent>`: the panel in which a person says what may be collected. */

import type { Category, Client, ConsentWords } from "./api.ts";

const WORDS: ConsentWords = {
  title: "What may we collect?",
  school: "Your results and technical faults are collected for your school. The rest is up to you:",
  user_interaction: "How you use the site: pages, menus, what you open",
  business_intelligence: "Which features are used, to plan what we build",
  save: "Save my choice",
  refuse: "Refuse both",
  saved: "Saved. You can change this at any time.",
};

const CHOICES = ["user_interaction", "business_intelligence"] as const;

const STYLE = `
:host{display:block;max-width:34rem;font:1rem/1.5 system-ui,sans-serif;color:var(--mlc-text,#1b1f24)}
:host([hidden]){display:none}
form{padding:1.25rem 1.5rem;border:1px solid var(--mlc-line,#6b7280);border-radius:.75rem;background:var(--mlc-paper,#fff)}
h2{margin:0;font-size:1.2rem}p{margin:.5rem 0}
label{display:flex;gap:.75rem;align-items:center;min-height:2.75rem;cursor:pointer}
input{flex:none;width:1.4rem;height:1.4rem;margin:0;accent-color:var(--mlc-accent,#0b57d0)}
div{display:flex;flex-wrap:wrap;gap:.75rem;margin-top:.75rem}
button{flex:1;min-height:2.75rem;padding:0 1rem;font:inherit;font-weight:600;border:2px solid var(--mlc-accent,#0b57d0);border-radius:.5rem;background:none;color:var(--mlc-accent,#0b57d0);cursor:pointer}
button:hover{text-decoration:underline}
:focus-visible{outline:3px solid var(--mlc-accent,#0b57d0);outline-offset:3px}
[role=status]{min-height:1.5em;margin-bottom:0}`;

/** Make `<mlc-consent>` known to the page and let it speak for `client`. Call it once. */
export function defineConsent(client: Client, words?: Partial<ConsentWords>): void {
  const say = { ...WORDS, ...words };
  customElements.define(
    "mlc-consent",
    class extends HTMLElement {
      _leave = () => {};

      connectedCallback() {
        const root = this.shadowRoot ?? this.attachShadow({ mode: "open", delegatesFocus: true });
        const boxes = build(root, say);
        const [form, status] = [root.querySelector("form")!, root.querySelector("[role=status]")!];
        const show = () => CHOICES.forEach((name) => (boxes[name]!.checked = client.consent[name]));
        const choose = (choice: (name: Category) => boolean) => {
          const [user_interaction, business_intelligence] = CHOICES.map(choice) as [boolean, boolean];
          void client.setConsent({ user_interaction, business_intelligence });
          show();
          status.textContent = say.saved;
          this.dispatchEvent(new Event("change"));
        };
        form.onsubmit = (event) => {
          event.preventDefault();
          choose((name) => boxes[name]!.checked);
        };
        form.querySelector<HTMLButtonElement>("[type=button]")!.onclick = () => choose(() => false);
        this._leave = client.on("consent", show);
        show();
      }

      disconnectedCallback() {
        this._leave();
      }
    },
  );
}

/** Fill the panel; the check boxes by category. A style sheet object, for pages with a strict CSP. */
function build(root: ShadowRoot, say: ConsentWords): Record<string, HTMLInputElement> {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE);
  root.adoptedStyleSheets = [sheet];
  const boxes: Record<string, HTMLInputElement> = {};
  const make = (tag: string, set: object, ...children: (Node | string)[]) => {
    const element = Object.assign(document.createElement(tag), set);
    element.append(...children);
    return element;
  };
  const rows = CHOICES.map((name) => {
    const box = make("input", { type: "checkbox", name }) as HTMLInputElement;
    boxes[name] = box;
    return make("label", {}, box, say[name]);
  });
  const status = make("p", { role: "status" });
  const buttons = make(
    "div",
    {},
    make("button", { type: "button" }, say.refuse),
    make("button", { type: "submit" }, say.save),
  );
  const title = make("h2", { id: "t" }, say.title);
  const form = make("form", {}, title, make("p", {}, say.school), ...rows, buttons, status);
  status.setAttribute("role", "status");
  form.setAttribute("aria-labelledby", "t");
  root.replaceChildren(form);
  return boxes;
}
