// The messages on the screen: each with what can be done with it.

import { $, el, smallButton } from "./dom.js";
import { copyText, MAX_SHOWN, Rendering } from "./markdown.js";
import { doneLine, errorCard, stopCard } from "./receipt.js";

const MAX_CALLS = 128;
const NO_TEXT = "This answer has no text. Images and sound of a model cannot be shown here.";

/** Lay out JSON that is whole; else as it is. */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Shows a conversation; `acts` has edit(at), retry(at), reopen(), key() and fresh(). */
export class Thread {
  #acts;
  #following = true;
  #top = 0; // how far it was scrolled at the last look

  constructor(acts) {
    this.#acts = acts;
    $("scroll").addEventListener("scroll", () => this.#look());
    new ResizeObserver(() => this.#follow()).observe($("scroll"));
  }

  /** The smallest step up leaves the end: a finger that moves slowly would be thrown back with each piece. */
  #look() {
    const { scrollHeight, scrollTop, clientHeight } = $("scroll");
    const left = scrollHeight - scrollTop - clientHeight;
    if (scrollTop < this.#top) this.#following = left < 4; // unless the text has become shorter
    else if (left < 60) this.#following = true;
    this.#top = scrollTop;
  }

  #follow() {
    const scroll = $("scroll");
    if (this.#following) scroll.scrollTop = scroll.scrollHeight;
    this.#top = scroll.scrollTop;
  }

  /** Show all of a conversation anew; return the last answer if it may go on, as `addAnswer`. */
  show(messages) {
    $("messages").replaceChildren();
    $("welcome").hidden = messages.length > 0;
    let open = null;
    messages.forEach((message, at) => {
      if (message.role === "user") this.addUser(message, at);
      else open = this.#restore(message, at);
    });
    if (messages.at(-1)?.role === "user") {
      const send = smallButton("Send it", () => this.#acts.retry(messages.length));
      $("messages").lastElementChild.append(el("p", { class: "line waits" }, "This has no answer yet. ", send));
    }
    this.toEnd(true);
    return messages.at(-1)?.role === "user" ? null : open;
  }

  addUser(message, at) {
    $("welcome").hidden = true;
    const item = el(
      "li",
      { class: "user" },
      el("p", { dir: "auto" }, message.content),
      el(
        "div",
        { class: "actions" },
        smallButton("Copy", (button) => copyText(message.content, button)),
        smallButton("Edit", () => this.#acts.edit(at)),
      ),
    );
    $("messages").append(item);
    this.toEnd(true);
    return item;
  }

  /** Begin an answer: what an `Exchange` shows, and what `end` finishes. */
  addAnswer(message) {
    const body = el("div", { class: "body" });
    const item = el("li", { class: "assistant", "aria-busy": "true" }, body);
    $("messages").append(item);
    this.toEnd(true);
    const rendering = new Rendering(body, () => this.toEnd());
    let thoughts = null;
    let lost = null;
    if (message.thoughts) {
      thoughts = this.#thoughts("Thoughts");
      thoughts.lastChild.append(message.thoughts);
      item.insertBefore(thoughts, body);
    }
    const thought = () => thoughts?.querySelector("summary").replaceChildren("Thoughts");
    const calls = (message.tools ?? []).map((call) => this.#toolCall(item, call));
    if (message.content) rendering.append(message.content);
    if (message.id) item.dataset.request = message.id;
    return {
      item,
      rendering,
      note: (text) => item.insertBefore(el("p", { class: "line" }, text), body),
      began: (event) => {
        item.dataset.request = message.id = event.request_id;
      },
      content: (text) => {
        if (message.content.length < MAX_SHOWN) message.content += text;
        thought();
        rendering.append(text);
      },
      reasoning: (text) => {
        message.thoughts ??= "";
        if (message.thoughts.length > MAX_SHOWN) return;
        message.thoughts += text;
        thoughts ??= item.insertBefore(this.#thoughts("Thinking"), body);
        thoughts.lastChild.append(text);
        this.toEnd();
      },
      toolCall: ({ index, id, name, arguments: more }) => {
        message.tools ??= [];
        // Not every provider counts from 0, and without holes.
        let at = message.tools.findIndex((one) => one.index === index);
        if (at < 0 && message.tools.length >= MAX_CALLS) return;
        if (at < 0) at = message.tools.push({ index, id, name: "", arguments: "" }) - 1;
        const call = message.tools[at];
        if (name) call.name = name;
        const taken = call.arguments.length < MAX_SHOWN ? more : "";
        calls[at] ??= this.#toolCall(item, call);
        call.arguments += taken;
        calls[at].grow(taken);
        this.toEnd();
      },
      lost: () => {
        lost ??= el("p", { class: "line waits" }, "The connection is lost: reconnecting. The answer goes on at the server meanwhile.");
        item.append(lost);
        this.toEnd();
      },
      found: () => lost?.remove(),
      settle: () => {
        thought(); // there may be no word after the thoughts
        // Laid out once they are whole: to try it with each piece would cost their square.
        calls.forEach((call) => call.update());
      },
    };
  }

  /** Show how an answer has ended, and what can be done with it. */
  async end(answer, message, at) {
    const { item, rendering } = answer;
    const { result, record } = message;
    answer.found();
    answer.settle();
    await rendering.finish();
    item.removeAttribute("aria-busy");
    if (result?.end === "done" && !message.content && !message.tools) item.append(el("p", { class: "line waits" }, NO_TEXT));
    if (result?.end === "stopped") item.append(stopCard(result, record));
    else if (result?.end === "elsewhere") item.append(this.#elsewhere());
    else if (result?.end === "done") item.append(doneLine(result));
    else if (result) item.append(errorCard(result, this.#remedies(result, at)));
    else item.append(el("p", { class: "line" }, "The page was closed before this answer had ended."));
    const actions = el("div", { class: "actions" });
    if (message.content) actions.append(smallButton("Copy", (button) => copyText(message.content, button)));
    actions.append(smallButton("Retry", () => this.#acts.retry(at)));
    item.append(actions);
    item.dataset.end = result?.end ?? "left";
    this.toEnd();
  }

  #restore(message, at) {
    const answer = this.addAnswer(message);
    if (!message.result && message.resume) return answer;
    this.end(answer, message, at);
    return null;
  }

  /** Show one call of a tool, folded, with its name; what is in it may still grow. */
  #toolCall(item, call) {
    const name = el("code", {});
    const text = el("code", {});
    const details = el("details", { class: "thoughts tool" }, el("summary", {}, "Tool call ", name), el("pre", { tabindex: 0, dir: "ltr" }, text));
    const update = () => {
      name.textContent = call.name;
      text.textContent = pretty(call.arguments);
    };
    const grow = (more) => {
      if (name.textContent !== call.name) name.textContent = call.name;
      text.append(more);
      text.normalize();
    };
    update();
    item.append(details);
    return { update, grow };
  }

  #elsewhere() {
    const here = smallButton("Go on here", () => this.#acts.reopen());
    return el("p", { class: "line waits" }, "This answer goes on in another tab. ", here);
  }

  #thoughts(title) {
    return el("details", { class: "thoughts" }, el("summary", {}, title), el("p", { dir: "auto" }));
  }

  #remedies(result, at) {
    if (result.status === 401) return [smallButton("Enter a key", () => this.#acts.key())];
    if (result.status === 404) return [smallButton("Choose another model", () => $("model").focus())];
    // Older messages are left out by themselves: it is the last one that is too long, or the system prompt, which every chat has.
    if (result.status === 413) {
      const system = $("system").value.trim() ? smallButton("Shorten the system prompt", () => $("settings-open").click()) : null;
      return [system, smallButton("Edit the message", () => this.#acts.edit(at - 1)), smallButton("New chat", () => this.#acts.fresh())];
    }
    return [smallButton("Try again", () => this.#acts.retry(at))];
  }

  /** Keep the end in view, unless the reader has scrolled away from it. */
  toEnd(always = false) {
    this.#look(); // its event may be still to come
    if (always) this.#following = true;
    this.#follow();
  }
}
