// An answer's text as paragraphs, lists and code, while it arrives. A small part of
// Markdown on purpose: what is not understood stays readable as it is written.

import { el } from "./dom.js";

// Beyond this the browser suffers more than the reader gains; no more is kept, either.
export const MAX_SHOWN = 200_000;

/** Cut text into blocks: {kind: "code"|"list"|"heading"|"text", text, ...}. */
export function blocksOf(text) {
  const blocks = [];
  let block = null;
  let fence = null;
  const start = (kind, line, more = {}) => {
    block = { kind, text: line, ...more };
    blocks.push(block);
  };
  const add = (line) => (block.text += `\n${line}`);
  for (const line of text.split("\n")) {
    const mark = line.match(/^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/);
    if (fence) {
      if (mark && mark[1].startsWith(fence) && !mark[2]) fence = block = null;
      else if (block.empty) Object.assign(block, { text: line, empty: false });
      else add(line);
    } else if (mark) {
      fence = mark[1];
      start("code", "", { language: mark[2], empty: true });
    } else if (line.trim() === "") {
      block = null;
    } else if (/^#{1,6} /.test(line)) {
      start("heading", line.replace(/^#+ /, ""));
      block = null;
    } else if (/^\s*([-*]|\d+[.)]) /.test(line)) {
      const ordered = /^\s*\d/.test(line);
      if (block?.kind === "list" && block.ordered === ordered) add(line);
      else start("list", line, { ordered });
    } else if (block) {
      add(line);
    } else {
      start("text", line);
    }
  }
  return blocks;
}

/** Inline code and bold; everything else as it is. */
function inline(text) {
  return text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).map((part) => {
    if (/^`.+`$/s.test(part)) return el("code", {}, part.slice(1, -1));
    if (/^\*\*.+\*\*$/s.test(part)) return el("strong", {}, part.slice(2, -2));
    return part;
  });
}

function elementOf(block) {
  switch (block.kind) {
    case "code":
      return el("pre", { tabindex: 0, "data-language": block.language }, el("code", {}, block.text));
    case "heading":
      return el("p", { class: "heading" }, ...inline(block.text));
    case "list": {
      const items = block.text.split(/\n(?=\s*(?:[-*]|\d+[.)]) )/);
      const bare = items.map((item) => item.replace(/^\s*([-*]|\d+[.)]) /, ""));
      return el(
        block.ordered ? "ol" : "ul",
        {},
        ...bare.map((item) => el("li", {}, ...inline(item))),
      );
    }
    default:
      return el("p", {}, ...inline(block.text));
  }
}

/** The body of one answer: `append` text as it comes, `flush` to show it now. */
export class Rendering {
  text = "";
  #element;
  #shown;
  #blocks = [];
  #timer = null;
  #cut = false;

  constructor(element, shown) {
    this.#element = element;
    this.#shown = shown;
  }

  append(text) {
    if (this.#cut) return;
    this.text += text;
    // Thirty times a second is smooth; more often is work that nobody sees.
    this.#timer ??= setTimeout(() => this.flush(), 33);
  }

  flush() {
    clearTimeout(this.#timer);
    this.#timer = null;
    if (!this.#cut) this.#draw();
    this.#shown();
  }

  #draw() {
    this.#show(blocksOf(this.text.slice(0, MAX_SHOWN)));
    if (this.text.length > MAX_SHOWN) {
      this.#cut = true;
      const note = "The display stops here; the stream itself goes on.";
      this.#element.append(el("p", { class: "quiet" }, note));
    }
  }

  /** Touch only the blocks that differ: the last one, as a rule. */
  #show(blocks) {
    let same = 0;
    while (same < blocks.length && equal(blocks[same], this.#blocks[same])) same += 1;
    const [old, next] = [this.#blocks[same], blocks[same]];
    if (next?.kind === "code" && grows(old, next)) {
      const code = this.#element.children[same].firstChild;
      code.append(next.text.slice(old.text.length));
      code.normalize();
      same += 1;
    }
    while (this.#element.children.length > same) this.#element.lastChild.remove();
    this.#element.append(...blocks.slice(same).map(elementOf));
    this.#blocks = blocks;
  }
}

const alike = (one, other) =>
  one.kind === other?.kind && one.ordered === other.ordered && one.language === other.language;

const equal = (one, other) => alike(one, other) && one.text === other.text;

const grows = (old, next) => alike(next, old) && next.text.startsWith(old.text);
