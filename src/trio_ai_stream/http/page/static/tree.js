// One running stream as it is inside the server: tasks in nurseries, scopes, deadlines.

import { count, el, time } from "./dom.js";

const GLOSS = [
  [/^timers /, "heartbeat and silence timers"],
  [/(run|handle|__call__|request)/i, "reads upstream, writes to the client"],
];
const LABEL = {
  stop: "stop",
  deadline: "deadline",
  first_token: "first token",
  idle: "idle",
  terminal_event: "last event",
};

/** Bring one stream's element up to date; rebuilds only what has changed. */
export function updateStream(item, stream, now, budgets) {
  const shape = JSON.stringify([stream.state, stream.outcome, stream.model, stream.task], (name, value) =>
    name === "due" && value !== null ? true : value,
  );
  if (item.shape !== shape) {
    item.shape = shape;
    item.dataset.state = stream.state;
    item.replaceChildren(head(stream), ...inside(stream));
  }
  const age = time(Math.max(0, (now - stream.began_at) * 1000));
  const tries = stream.attempts > 1 ? ` · attempt ${stream.attempts}` : "";
  write(item.querySelector(".age"), `${age} · ${count(stream.events, "event")}${tries}`);
  const scopes = stream.task ? [...dues(stream.task)] : [];
  item.querySelectorAll(".scope[data-due]").forEach((chip, index) => {
    countDown(chip, scopes[index], now, budgets);
  });
}

function head(stream) {
  return el(
    "div",
    { class: "head" },
    el("span", { class: "state" }, stream.outcome ?? stream.state),
    el("code", { class: "id", title: stream.id }, stream.id.slice(0, 8)),
    el("span", { class: "model" }, stream.model),
    el("span", { class: "age quiet" }),
  );
}

function inside(stream) {
  if (stream.task) return [el("ul", {}, taskItem(stream.task))];
  return stream.elsewhere ? [el("p", { class: "quiet" }, "Lives in another process of this server.")] : [];
}

function taskItem(task) {
  const gloss = GLOSS.find(([pattern]) => pattern.test(task.name))?.[1];
  const name = task.name.replace(/^timers .*/, "timers");
  return el(
    "li",
    { class: "task" },
    el("code", {}, name),
    gloss ? el("span", { class: "quiet" }, ` ${gloss}`) : null,
    task.nurseries.length ? el("ul", {}, ...task.nurseries.map(nurseryItem)) : null,
  );
}

function nurseryItem(nursery) {
  return el(
    "li",
    { class: "nursery" },
    el("span", { class: "name" }, `${nursery.label} nursery`),
    nursery.scopes.length ? el("div", { class: "scopes" }, ...nursery.scopes.map(scopeChip)) : null,
    nursery.tasks.length ? el("ul", {}, ...nursery.tasks.map(taskItem)) : null,
  );
}

function scopeChip(scope) {
  return el(
    "span",
    { class: "scope", "data-label": scope.label, "data-due": scope.due !== null },
    el("span", {}, LABEL[scope.label] ?? scope.label),
    scope.due === null ? null : el("span", { class: "left" }),
    scope.due === null ? null : el("span", { class: "bar" }, el("span", {})),
  );
}

/** Yield the scopes with a deadline in the order of their chips. */
function* dues(task) {
  for (const nursery of task.nurseries) {
    yield* nursery.scopes.filter((scope) => scope.due !== null);
    for (const child of nursery.tasks) yield* dues(child);
  }
}

function countDown(chip, scope, now, budgets) {
  const left = Math.max(0, scope.due - now);
  const total = budgets[scope.label] ?? left;
  write(chip.querySelector(".left"), left < 120 ? `${left.toFixed(1)} s` : time(left * 1000));
  const share = total > 0 ? Math.min(1, left / total) : 0;
  chip.querySelector(".bar > span").style.transform = `scaleX(${share.toFixed(3)})`;
}

function write(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}
