/** The treble staff: which notes there are, and how they are drawn. */

const SVG = "http://www.w3.org/2000/svg";
const GAP = 16; // between two lines
const BOTTOM = 132; // the lowest line: E4
const PLACES = ["first line", "first space", "second line", "second space", "third line", "third space", "fourth line", "fourth space", "fifth line"];

export const NAMES = ["A", "B", "C", "D", "E", "F", "G"];

/** The notes to choose from: the staff first, with ledger lines once that goes well. */
export function notesOf(right) {
  const [low, high] = right < 10 ? [0, 8] : [-2, 10];
  return Array.from({ length: high - low + 1 }, (_, i) => note(low + i));
}

/** Draw the five lines. */
export function drawStaff(group) {
  for (let i = 0; i < 5; i++) group.append(line(24, BOTTOM - i * GAP, 296, BOTTOM - i * GAP));
}

/** Draw a note with its stem and ledger lines. */
export function drawNote(group, { step }) {
  const x = 196;
  const y = BOTTOM - (step * GAP) / 2;
  const head = make("ellipse", { cx: x, cy: y, rx: 10.5, ry: 7.4, transform: `rotate(-18 ${x} ${y})` });
  const up = step < 4;
  const stem = up ? line(x + 9.6, y - 3, x + 9.6, y - 52) : line(x - 9.6, y + 3, x - 9.6, y + 52);
  stem.setAttribute("stroke-width", "2");
  const ledgers = [-2, 10].filter((at) => (at < 0 ? step <= at : step >= at)).map((at) => {
    const made = line(x - 18, BOTTOM - (at * GAP) / 2, x + 18, BOTTOM - (at * GAP) / 2);
    made.setAttribute("class", "ledger");
    return made;
  });
  group.replaceChildren(...ledgers, stem, head);
}

/** `step` counts from the lowest line: 0 is E4, 1 F4. */
function note(step) {
  const name = NAMES[(((step + 4) % 7) + 7) % 7];
  const place = PLACES[step] ?? (step < 0 ? "or below a line under the staff" : "or above a line over the staff");
  return { step, name, place: step in PLACES ? `the ${place}` : place };
}

function line(x1, y1, x2, y2) {
  return make("line", { x1, y1, x2, y2 });
}

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
