/** Elements of the page. Words become text, never markup: nothing here reads HTML. */

export const $ = (id) => document.getElementById(id);

/** Make an element: `make("td", { class: "when" }, "14:30")`. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for drawings. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

/** Show a state: "good", "warn", "bad" or "" with its words. */
export function state(element, kind, words) {
  element.className = `state ${kind}`;
  if (element.textContent !== words) element.textContent = words;
}

/** Make a small table: headings, then rows of cells; all columns but the first are numbers. */
export function table(title, headings, rows) {
  const cell = (name, words, column) =>
    make(name, name === "th" ? { scope: "col", ...number(column) } : number(column), words);
  const number = (column) => (column ? { class: "number" } : {});
  return make("div", {}, make("h3", {}, title), make("table", { "aria-label": title },
    make("thead", {}, make("tr", {}, ...headings.map((words, i) => cell("th", words, i)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((words, i) => cell("td", words, i)))))));
}

export const count = (number) => Number(number ?? 0).toLocaleString("en", { maximumFractionDigits: 1 });
export const clock = (moment) => new Date(moment).toLocaleTimeString([], { hour12: false });

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}
