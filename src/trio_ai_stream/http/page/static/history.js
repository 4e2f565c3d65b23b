// The list of conversations that this browser keeps: open, rename, export, delete.

import { $, button, composes, el, smallButton } from "./dom.js";
import { MAX_SHOWN } from "./markdown.js";
import { CUT } from "./receipt.js";
import { conversations } from "./store.js";

const small = (label, name, act) => button({ class: "small", "aria-label": `${label}: ${name}` }, act, label);

/**
 * Fill the dialog. `acts` has `current`, the id of the one that is open; `open(id)`, which shows one, or returns why it
 * cannot; and `removing(id)`, which hears of one before it is deleted.
 */
export async function showHistory(acts) {
  const { current, open, removing } = acts;
  const all = await conversations.all();
  $("history-note").textContent = all.length ? "They are kept in this browser only." : "Nothing is kept yet.";
  const again = () => showHistory(acts);
  $("history-list").replaceChildren(
    ...all.map((record) => {
      const show = async () => {
        const refused = await open(record.id);
        if (refused) $("history-note").textContent = refused;
      };
      const attributes = { class: "title", dir: "auto", "aria-current": record.id === current ? "true" : null };
      const item = el("li", {}, button(attributes, show, record.title, el("span", { class: "quiet" }, when(record.at))));
      const renames = small("Rename", record.title, () => rename(item, record, acts));
      renames.dataset.rename = record.id;
      item.append(
        renames,
        small("Export", record.title, () => download(record)),
        small("Delete", record.title, async () => {
          removing(record.id); // first: what is deleted must not be written again
          await conversations.remove(record.id);
          await again();
          ($("history-list").querySelector("button") ?? $("history-close")).focus();
        }),
      );
      return item;
    }),
  );
}

const when = (at) => new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

function rename(item, record, acts) {
  const input = el("input", { type: "text", "aria-label": "New name", maxlength: 120 });
  input.value = record.title;
  const done = async () => {
    await showHistory(acts);
    // The field that had the focus is gone: the button that made it has it again.
    $("history-list").querySelector(`[data-rename="${record.id}"]`)?.focus();
  };
  const save = async () => {
    const title = input.value.trim();
    if (title) await conversations.rename(record.id, title);
    await done();
  };
  input.addEventListener("keydown", (event) => {
    const act = { Enter: save, Escape: done }[event.key];
    if (!act || composes(event)) return;
    event.preventDefault(); // else the rest of the key press is for the button that has the focus by then
    act();
  });
  item.replaceChildren(input, smallButton("Save", save));
  input.focus();
}

/** Say why an answer is not a whole one; null if it is. */
function remark({ content, result }) {
  if (content.length >= MAX_SHOWN) return "Only the beginning of this answer was kept.";
  if (!result) return "This answer had not ended.";
  if (result.end === "stopped") return "This answer was stopped.";
  if (result.end === "error") return `This answer broke off: ${result.message}`;
  return CUT[result.finish] ? `This answer was ${CUT[result.finish]}.` : null;
}

/** Return a message as Markdown, with its tool calls, and with what it lacks. */
function written(message) {
  if (message.role === "user") return `## You\n\n${message.content}\n`;
  const calls = (message.tools ?? []).map((call) => `Tool call ${call.name}: ${call.arguments}`);
  const lacks = remark(message);
  return [`## Answer`, message.content, ...calls, lacks && `*${lacks}*`].filter(Boolean).join("\n\n") + "\n";
}

/** Write a conversation as a Markdown file. */
function download(record) {
  const parts = record.messages.map(written);
  const file = new Blob([`# ${record.title}\n\n${parts.join("\n")}`], { type: "text/markdown" });
  const link = el("a", { href: URL.createObjectURL(file), download: `${[...record.title.replace(/[^\p{L}\p{N}]+/gu, "-")].slice(0, 40).join("")}.md` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
