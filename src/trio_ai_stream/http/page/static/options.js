// The drawer of options: what is chosen there is kept, and goes along with each question.

import { $ } from "./dom.js";
import { choice } from "./store.js";

/** What this browser keeps of the choices: {model, upstream, system, temperature, max_tokens}. */
export const options = choice("options");

// An answer may hold what the server takes in no request: half a character, a control. The chat must go on all the same.
export const writable = (text) => text.toWellFormed().replace(/[\0-\x08\x0b\x0c\x0e-\x1f]/g, "\uFFFD");

const number = (id) => ($(id).value.trim() === "" || !$(id).checkValidity() ? null : Number($(id).value));

/** What stands in the drawer, as a request wants it; null for what is empty or wrong. */
export const chosen = () => ({
  system: writable($("system").value.trim()),
  temperature: number("temperature"),
  max_tokens: number("max-tokens"),
});

/** Fill the drawer with what is kept, and say on its button how much is chosen. */
export function fillOptions() {
  const kept = options.get() ?? {};
  $("system").value = kept.system ?? "";
  $("temperature").value = kept.temperature ?? "";
  $("max-tokens").value = kept.max_tokens ?? "";
  tellOptions();
}

function tellOptions() {
  const set = Object.values(chosen()).filter((value) => value !== null && value !== "").length;
  const wrong = ["temperature", "max-tokens"].map($).filter((field) => !field.checkValidity());
  const said = [set || null, wrong.length ? `${wrong.length} not sent` : null].filter(Boolean).join(", ");
  $("settings-open").textContent = said ? `Options (${said})` : "Options";
  const names = wrong.map((field) => `${field.labels[0].firstChild.textContent.trim()}: ${field.validationMessage}`);
  $("settings-note").textContent = wrong.length ? `Not sent. ${names.join(" ")}` : "";
}

$("settings").addEventListener("input", ({ target }) => {
  // Only this one: another tab may have changed the others since.
  const name = target.id.replace("-", "_");
  options.set({ ...options.get(), [name]: chosen()[name] });
  tellOptions();
});
