// One running stream as it is inside the server: tasks in nurseries, scopes, deadlines.

import { button, el, time } from "./dom.js";

const GLOSS = [
  [/^heartbeat /, "writes a sign of life"],
  [/^grace /, "ends the stream if its client stays away"],
  [/^stream /, "reads upstream, writes what the client reads"],
  [/(run|handle|__call__|request)/i, "reads upstream, writes to the client"],
];
const LABEL = {
  stop: "stop",
  deadline: "deadline",
  first_token: "first token",
  idle: "idle",
  done_grace: "usage to come",
  terminal_event: "last event",
  rest: "rest of the answer",
};

// States in which a stream has left the scopes that it ran in.
const LEFT = new Set(["ending", "finishing"]);

/**
 * Bring one stream's rows up to date; rebuilds only what has changed. `view` says whether it
 * is `open` and there is a column for owners (`owned`), and has toggle(id), cancel(id) and spark(id).
 */
export function updateStream(item, stream, now, budgets, view) {
  const shape = JSON.stringify([stream.state, stream.outcome, stream.model, view.open && stream.task, view.open, view.owned], (name, value) =>
    name === "due" && value !== null ? true : value,
  );
  if (item.shape !== shape) {
    // The button that has the focus is made anew: the focus goes with it.
    const focused = item.contains(document.activeElement) ? document.activeElement.className : null;
    item.shape = shape;
    // A server that is slow to tell the client is seen with one scope, or none. What the
    // stream had while it ran is kept for its ending.
    if (!LEFT.has(item.dataset.state)) item.ran = item.querySelector(".tree");
    item.dataset.state = stream.state;
    item.replaceChildren(row(stream, view), ...(view.open ? [inside(stream, view)] : []));
    if (focused) item.getElementsByClassName(focused)[0]?.focus();
    item.cells = ["age", "events", "spark"].map((name) => item.querySelector(`.${name}`));
  }
  const [age, events, spark] = item.cells;
  write(age, time(Math.max(0, (now - stream.began_at) * 1000)));
  write(events, stream.events.toLocaleString("en"));
  write(spark, view.spark(stream.id));
  if (!view.open || !stream.task) return;
  const scopes = [...dues(stream.task)];
  item.querySelectorAll(".scope[data-due]").forEach((chip, index) => {
    countDown(chip, scopes[index], now, budgets);
  });
}

function row(stream, view) {
  const open = button(
    { class: "open", "aria-expanded": String(view.open), title: stream.id },
    () => view.toggle(stream.id),
    el("span", { class: "state" }, stream.outcome ?? stream.state),
    el("span", { class: "unseen" }, ` stream ${stream.id.slice(0, 8)}`),
  );
  const name = `Cancel ${stream.id.slice(0, 8)}`;
  const over = stream.state === "finishing";
  const cancel = button({ class: "small cancel", "aria-label": name, title: name }, () => view.cancel(stream.id), "✕");
  return el(
    "tr",
    {},
    el("td", {}, open),
    el("td", { class: "model", title: stream.model }, stream.model),
    el("td", { class: "age" }),
    el("td", { class: "events" }),
    el("td", { class: "owner", title: stream.owner }, stream.owner.replace(/^(key|name|ip):/, "")),
    el("td", { class: "spark", "aria-hidden": "true" }),
    el("td", {}, over ? null : cancel),
  );
}

function inside(stream, { owned }) {
  const why = stream.elsewhere ? "Lives in another process of this server." : "Its tasks are being asked for.";
  return el(
    "tr",
    { class: "inside" },
    el(
      "td",
      { colspan: owned ? 7 : 6 },
      el("p", { class: "quiet" }, "id ", el("code", {}, stream.id), stream.attempts > 1 ? ` · try ${stream.attempts} at upstream` : ""),
      stream.task ? el("ul", { class: "tree" }, taskItem(stream.task)) : el("p", { class: "quiet" }, why),
    ),
  );
}

/** The end of a stream whose tree was open, in slow motion: what closed, and when. */
export function showEnding(item, record) {
  const closed = record.upstream_closed_ms;
  const rest = record.rest_ms;
  const gone = rest == null ? "tasks, nursery and permit" : "nursery and permit";
  const steps = [
    ["0 ms", `cause: ${record.outcome}`],
    closed == null ? null : [time(closed), "the connection to upstream is closed"],
    [time(record.ending_ms), record.told ? `the client was told; ${gone} are gone` : `${gone} are gone; the client could not be told`],
    rest == null ? null : [`~${time(rest)}`, "more for the rest of upstream's answer, which was read behind the shield; then the task is gone"],
  ].filter(Boolean);
  if (LEFT.has(item.dataset.state) && item.ran && rest == null) item.querySelector(".tree").replaceWith(item.ran);
  item.dataset.state = "ended";
  item.querySelector(".state").textContent = record.outcome;
  item.querySelector(".state").dataset.outcome = record.outcome;
  item.querySelector(".open").disabled = true;
  item.querySelector(".cancel")?.remove();
  // Scopes first, then tasks, then nurseries from the inside out: as Trio unwinds them.
  const parts = [
    ...item.querySelectorAll(".scope"),
    ...[...item.querySelectorAll(".task > code, .nursery")].reverse(),
  ];
  parts.forEach((part, at) => {
    part.classList.add("closing");
    part.style.transitionDelay = `${200 + at * 250}ms`;
  });
  void item.offsetWidth; // lays out what is not closed yet, so that the closing is a transition
  parts.forEach((part) => part.classList.add("closed"));
  item.querySelector(".inside > td").append(
    el("p", { class: "quiet" }, "Slowed down; it took:"),
    el("ol", { class: "steps" }, ...steps.map(([at, what]) => el("li", {}, el("code", {}, at), ` ${what}`))),
  );
}

function taskItem(task) {
  const gloss = GLOSS.find(([pattern]) => pattern.test(task.name))?.[1];
  const name = task.name.replace(/^(heartbeat|grace|stream) .*/, "$1"); // without the id
  return el(
    "li",
    { class: "task" },
    el("code", {}, name),
    gloss ? el("span", { class: "quiet" }, ` ${gloss}`) : null,
    task.scopes.length ? el("div", { class: "scopes" }, ...task.scopes.map(scopeChip)) : null,
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
    { class: "scope", "data-label": scope.label, "data-due": scope.due !== null, "data-shield": scope.shield },
    el("span", {}, LABEL[scope.label] ?? scope.label),
    scope.due === null ? null : el("span", { class: "left" }),
    scope.due === null ? null : el("span", { class: "bar" }, el("span", {})),
  );
}

/** Yield the scopes with a deadline in the order of their chips. */
function* dues(task) {
  yield* task.scopes.filter((scope) => scope.due !== null);
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
