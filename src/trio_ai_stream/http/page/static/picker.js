// The choice of a model: a text field with a list that it searches (ARIA's combobox).

import { composes, el } from "./dom.js";

const MOST = 60;

const remark = (text) => el("li", { class: "quiet", role: "option", "aria-disabled": "true" }, text);

/** `find()` gives all choices, as [{model, description}], when the list is first opened. */
export class Picker {
  #input;
  #list;
  #find;
  #all = null;
  #at = -1;
  #changed;
  #words = null; // what was asked for last

  constructor(input, list, find, changed) {
    [this.#input, this.#list, this.#find, this.#changed] = [input, list, find, changed];
    input.addEventListener("focus", () => input.select());
    input.addEventListener("click", () => this.#open(""));
    input.addEventListener("input", () => this.#open(input.value));
    input.addEventListener("keydown", (event) => this.#key(event));
    input.addEventListener("change", () => this.#changed(input.value.trim()));
    input.addEventListener("blur", () => this.#close());
    // The press must not take the focus, which would close the list under it.
    list.addEventListener("pointerdown", (event) => event.preventDefault());
    list.addEventListener("click", (event) => this.#pick(event.target.closest("[role=option]")));
  }

  async #open(words) {
    this.#words = words;
    const all = this.#all ?? (await this.#find().catch((error) => error));
    if (words !== this.#words) return; // more has been typed meanwhile
    if (all instanceof Error) return this.#say(`The list cannot be had now (${all.message}). A name is sent as it stands.`);
    this.#all = all;
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = all.filter(({ model, description }) => {
      const text = `${model} ${description ?? ""}`.toLowerCase();
      return wanted.every((word) => text.includes(word));
    });
    this.#at = -1;
    this.#list.replaceChildren(
      ...fits.slice(0, MOST).map(({ model, description }, number) =>
        el(
          "li",
          { role: "option", id: `model-${number}`, "data-model": model, "aria-selected": "false" },
          el("span", {}, model),
          description ? el("span", { class: "quiet" }, description) : null,
        ),
      ),
    );
    if (fits.length > MOST) this.#list.append(remark(`${fits.length - MOST} more: search`));
    if (fits.length === 0) return this.#say("No such model in the list; its name is sent as it stands.");
    this.#show(document.activeElement === this.#input);
  }

  #say(text) {
    this.#list.replaceChildren(remark(text));
    this.#at = -1;
    this.#show(document.activeElement === this.#input);
  }

  #show(open) {
    this.#list.hidden = !open;
    this.#input.setAttribute("aria-expanded", String(open));
    if (!open) this.#input.removeAttribute("aria-activedescendant");
  }

  #close() {
    this.#show(false);
  }

  #key(event) {
    if (composes(event)) return;
    const options = [...this.#list.querySelectorAll("[data-model]")];
    if (event.key === "Escape" && !this.#list.hidden) {
      event.stopPropagation();
      this.#close();
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (!this.#list.hidden && this.#at >= 0) this.#pick(options[this.#at]);
      else this.#changed(this.#input.value.trim());
      this.#close();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (this.#list.hidden) return this.#open("");
      if (!options.length) return;
      const step = event.key === "ArrowDown" ? 1 : -1;
      const from = this.#at < 0 && step < 0 ? 0 : this.#at; // up from none is the last one
      this.#at = (from + step + options.length) % options.length;
      options.forEach((option, at) => option.setAttribute("aria-selected", String(at === this.#at)));
      options[this.#at]?.scrollIntoView({ block: "nearest" });
      this.#input.setAttribute("aria-activedescendant", options[this.#at]?.id ?? "");
    }
  }

  #pick(option) {
    if (!option?.dataset.model) return;
    this.#input.value = option.dataset.model;
    this.#close();
    this.#changed(option.dataset.model);
  }
}
