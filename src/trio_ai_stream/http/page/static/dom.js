// Small makers of elements. Text goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** Make an element: el("p", {class: "quiet"}, "text", child, ...). */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Make a button that calls `act(button)`: button({class: "plain"}, act, "text", child, ...). */
export function button(attributes, act, ...children) {
  const made = el("button", { type: "button", ...attributes }, ...children);
  made.addEventListener("click", () => act(made));
  return made;
}

export const smallButton = (label, act) => button({ class: "small" }, act, label);

const EMPTIED_MS = 200;

/** Fill a field of a secret with what `read` says; again when the page is shown again: Safari empties it, behind this event. */
export function fillWith(field, read) {
  const fill = () => (field.value = read());
  fill();
  addEventListener("pageshow", ({ persisted }) => persisted && setTimeout(fill, EMPTIED_MS));
}

/** Say at the top of the page how it stands with the server: `waiting`, `live` or `lost`, and a few words. */
export function showLink(state, text) {
  $("link").dataset.state = state;
  $("link").textContent = text;
}

/** Whether this key is for the input method, which composes a word; Safari says of its last one only that it has no code. */
export const composes = (event) => event.isComposing || event.keyCode === 229;

const digits = (value) =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);

/** Write a time in milliseconds as a person would. */
export function time(ms) {
  if (ms == null) return "-";
  if (ms < 1000) return `${digits(ms)} ms`;
  if (ms < 120_000) return `${digits(ms / 1000)} s`;
  return `${digits(ms / 60_000)} min`;
}

export const count = (n, noun) =>
  `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
