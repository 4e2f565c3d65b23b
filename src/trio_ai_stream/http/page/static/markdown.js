// An answer's text as Markdown, while it arrives. The server parses (`/page/markdown`);
// this module asks only about what may still change, the last block, and builds elements
// from the tree that comes back. Text is always put in as text.

import { el, smallButton } from "./dom.js";
import { parseMarkdown } from "./server.js";

// Beyond this the browser suffers more than the reader gains; no more is kept, either.
export const MAX_SHOWN = 200_000;
const MAX_ASKED = 8000;
const FRAME_MS = 33;
const ASK_MS = 120;
// A server that drains parses no more: until it can again, text is shown as it was written.
const FAILED_MS = 2000;
const TAGS = new Set(
  "p h3 h4 h5 h6 ul ol li table thead tbody tr th td blockquote pre code strong em s a hr".split(" "),
);
const WITH_TEXT = new Set("p h3 h4 h5 h6 li th td".split(" "));
// Where their marks, bars and columns stand depends on the text, but `dir="auto"` does not look into what has a `dir` itself.
const WITH_BLOCKS = new Set("ul ol blockquote table".split(" "));
const FROM_THE_RIGHT = /^\P{L}*[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;
// What has no meaning in Markdown can be shown before the server has seen it.
const PLAIN = /^[^\n*_`[\]<>|~!#\\&:]+/;
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
// Where a long block may be cut: before a line that is not a part of an item, a line, a word, a character.
const CUTS = [/^[^]*\n(?=\S)/, /^[^]*\n(?=[^])/, /^[^]* (?=[^])/, /^[^]*(?=[^])/u];

/** Build the element of a node: a text, or [tag, attributes, child, ...]. */
export function build(node) {
  if (typeof node === "string") return node;
  const [tag, given, ...children] = node;
  if (tag === "pre") return codeBlock(given.language, children.join("").replace(/\n$/, ""));
  if (!TAGS.has(tag)) return el("span", {}, ...children.map(build));
  const attributes = { start: given.start, title: given.title, "data-align": given.align };
  if (WITH_TEXT.has(tag)) attributes.dir = "auto";
  if (tag === "a" && /^(https?|mailto):/i.test(given.href)) {
    Object.assign(attributes, { href: given.href, target: "_blank", rel: "noopener noreferrer" });
  }
  const element = el(tag, attributes, ...children.map(build));
  if (WITH_BLOCKS.has(tag)) element.dir = FROM_THE_RIGHT.test(element.textContent) ? "rtl" : "ltr";
  return tag === "table" ? el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Table" }, element) : element;
}

function codeBlock(language, text) {
  const code = el("code", {}, text);
  const copy = smallButton("Copy", (button) => copyText(code.textContent, button));
  return el(
    "div",
    { class: "code", dir: "ltr" },
    el("div", { class: "code-head" }, el("span", {}, language || "text"), copy),
    el("pre", { tabindex: 0 }, code),
  );
}

/** Put `text` on the clipboard, and say so on the button for a moment. */
export async function copyText(text, button) {
  const label = (button.dataset.label ??= button.textContent);
  const done = navigator.clipboard
    ? await navigator.clipboard.writeText(text).then(() => true, () => false)
    : copySelected(text, button);
  button.textContent = done ? "Copied" : "Not allowed";
  setTimeout(() => (button.textContent = label), 1500);
}

/** Put `text` on the clipboard where a page has none of its own: without TLS, on another machine. */
function copySelected(text, button) {
  const area = el("textarea", { class: "unseen", readonly: true });
  area.value = text;
  button.after(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  button.focus();
  return done;
}

/** The body of one answer: `append` text as it comes, `finish` when it is over. */
export class Rendering {
  text = "";
  #element;
  #shown;
  #settled = 0; // where the text of the last block begins, which may still change
  #parsed = 0; // how far the server has parsed
  #plain = 0; // how far the text is on the screen
  #kept = 0; // how many elements belong to settled blocks
  #fence = null; // the mark of an open block of code, which needs no parser
  #head = ""; // of a table that is longer than what is asked about at once
  #return = false; // a CR was the last, which an LF may follow
  #timer = null;
  #asking = null;
  #goOn = () => {};
  #over = false;
  #unparsed = false; // the server could not, the last time
  #cut = false;

  constructor(element, shown) {
    this.#element = element;
    this.#shown = shown;
  }

  append(text) {
    if (this.#cut) return;
    if (text === "") return;
    // A CRLF may be cut in two, and a CR alone ends a line for the parser as well.
    const more = this.#return && text.startsWith("\n") ? text.slice(1) : text;
    this.#return = text.endsWith("\r");
    this.text += more.replace(/\r\n?/g, "\n");
    if (this.text.length > MAX_SHOWN) {
      this.#cut = true;
      this.text = this.text.slice(0, MAX_SHOWN);
      this.#element.after(el("p", { class: "quiet" }, "The display stops here; the stream itself goes on."));
    }
    // Thirty times a second is smooth; more often is work that nobody sees.
    this.#timer ??= setTimeout(() => this.#frame(), FRAME_MS);
  }

  /** Show all of the text; where the server cannot parse, as it was written. */
  async finish() {
    clearTimeout(this.#timer);
    this.#over = true;
    this.#goOn();
    await this.#asking;
    if (this.#fence) this.#growCode(true);
    while (this.#parsed < this.text.length && (await this.#ask()));
    this.#addRest(this.text.slice(this.#plain));
    this.#shown();
  }

  #frame() {
    this.#timer = null;
    const rest = this.text.slice(this.#plain);
    if (this.#fence) this.#growCode();
    else this.#addRest(this.#unparsed ? rest : (rest.match(PLAIN)?.[0] ?? ""));
    this.#shown();
    this.#asking ??= this.#keepAsking().finally(() => (this.#asking = null));
  }

  async #keepAsking() {
    while (!this.#over && this.#parsed < this.text.length) {
      const parsed = await this.#ask();
      this.#unparsed = !parsed;
      if (!parsed) this.#addRest(this.text.slice(this.#plain));
      await new Promise((resolve) => {
        this.#goOn = resolve;
        setTimeout(resolve, parsed ? ASK_MS : FAILED_MS);
      });
    }
  }

  /** Have the server parse from the last block on; false if it cannot. */
  async #ask() {
    if (this.#fence) {
      this.#growCode();
      if (this.#fence || this.#parsed === this.text.length) return true;
    }
    const head = this.#head;
    const rest = this.text.slice(this.#settled);
    const piece = rest.slice(0, cut(rest, MAX_ASKED - head.length));
    const blocks = await parseMarkdown(head + piece);
    if (blocks === null) return false;
    while (this.#element.children.length > this.#kept) this.#element.lastChild.remove();
    this.#element.append(...blocks.map(([, node]) => build(node)));
    this.#parsed = this.#settled + piece.length;
    const ends = starts(head + piece, blocks).map((at) => Math.max(0, at - head.length));
    const more = piece.length < rest.length;
    this.#fence = blocks.at(-1)?.[1][0] === "pre" ? this.#openFence(this.#settled + ends.at(-1)) : null;
    if (more && blocks.length < 2 && !this.#fence) {
      this.#settled = this.#parsed;
      this.#kept = this.#element.children.length;
      this.#head = blocks[0]?.[1][0] === "table" ? head || headOf(piece) : "";
    } else if (blocks.length > 0) {
      this.#settled += ends.at(-1);
      this.#kept = this.#element.children.length - 1;
      if (blocks.length > 1) this.#head = "";
    }
    this.#plain = this.#parsed;
    if (this.#fence) this.#growCode();
    else this.#addRest(this.text.slice(this.#plain).match(PLAIN)?.[0] ?? "");
    this.#shown();
    return true;
  }

  /** Return the fence of the last block, unless it has ended or is not at its start. */
  #openFence(begin) {
    const [first, ...lines] = this.text.slice(begin, this.#parsed).split("\n");
    const mark = first.match(FENCE)?.[1];
    return mark && lines.length && !lines.some((line) => closes(mark, line)) ? mark : null;
  }

  /** Show more of a block of code; what may be its end waits for more, unless `all`. */
  #growCode(all = false) {
    const begin = this.text.indexOf("\n", this.#settled) + 1;
    const lines = this.text.slice(begin).split("\n");
    const whole = all ? lines.length : lines.length - 1;
    const end = lines.findIndex((line, at) => at < whole && closes(this.#fence, line));
    const waits = !all && /^ {0,3}[`~]/.test(lines.at(-1));
    const known = lines.slice(0, end >= 0 ? end : waits ? -1 : undefined).join("\n");
    const code = this.#element.lastElementChild.querySelector("pre > code");
    // A flood's code grows by what is new: to set it all again would cost its square.
    if (known.startsWith(code.textContent)) code.append(known.slice(code.textContent.length));
    else code.textContent = known;
    code.normalize();
    this.#plain = begin + known.length;
    this.#parsed = this.text.length;
    if (end < 0) return;
    this.#fence = null;
    this.#settled = this.#parsed = this.#plain = begin + lines.slice(0, end + 1).join("\n").length;
    this.#kept = this.#element.children.length;
  }

  /** Add text to where the last text stands. */
  #addRest(text) {
    if (!text) return;
    let last = this.#element.lastElementChild;
    while (last?.lastElementChild && last.lastChild === last.lastElementChild && !last.matches("p, pre")) last = last.lastElementChild;
    if (!last?.matches("p, li, code, h3, h4, h5, h6") || this.#element.children.length <= this.#kept) {
      last = el("p", { dir: "auto" });
      this.#element.append(last);
    }
    last.append(text);
    last.normalize();
    this.#plain += text.length;
  }
}

/** Return how much of `text` to ask about at once. */
function cut(text, most) {
  if (text.length <= most) return text.length;
  const places = CUTS.map((place) => text.slice(0, most + 1).match(place)?.[0].length ?? 0);
  return places.find((length) => length > most / 2);
}

/** Return the head of the table that `text` begins with; none, if it is most of what can be asked about. */
function headOf(text) {
  const [head] = text.match(/^.*\n.*\n/) ?? [""];
  return head.length < MAX_ASKED / 2 ? head : "";
}

const closes = (mark, line) => {
  const found = line.match(FENCE)?.[1];
  return found?.startsWith(mark) && line.trim() === found;
};

/** Return where in `text` each block begins. */
function starts(text, blocks) {
  const lines = [0];
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) lines.push(at + 1);
  return blocks.map(([line]) => lines[line] ?? text.length);
}
