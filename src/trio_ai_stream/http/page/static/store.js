// What this browser keeps: conversations in IndexedDB, small choices in its other storages.
// What a browser does not take (private windows, a full disk) lasts as long as the page.

const NAME = "trio-ai-stream";
const unkept = new Map(); // conversations that the database did not take, by id
const choices = new Map(); // and choices, by name
const removals = new BroadcastChannel(`${NAME} removals`); // what one page deletes, the others are not to write again
let opened = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
    request.onsuccess = () => {
      // Whoever clears the site's data closes it: the next one is a new one.
      request.result.onclose = () => (opened = null);
      resolve(request.result);
    };
    request.onerror = () => reject(request.error);
  });
  return opened;
}

const identity = () => crypto.randomUUID?.() ?? String(Math.random()).slice(2);

// Who writes: this page, until it is loaded anew.
const page = identity();
const version = (record) => (record ? `${record.by} ${record.at}` : "");
/** Whether `record` says all that `stored` does: a page that takes an answer over goes on where the other was. */
const includes = (record, stored) =>
  stored.messages.every(({ role, content }, at) => {
    const same = record.messages[at];
    return same?.role === role && same.content.startsWith(content);
  });

/** Return what the request of `act` finds once all of it is on the disk; throw if it cannot be. */
async function run(mode, act) {
  const transaction = (await database()).transaction("conversations", mode);
  const request = act(transaction.objectStore("conversations"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    // An error of a request comes here, too, and so does a full disk, which no request hears of.
    transaction.onabort = () => reject(transaction.error);
  });
}

/** Do `write(stored)` in one transaction: no other page can write in between. */
const change = (id, write) =>
  run("readwrite", (store) => {
    const looking = store.get(id);
    looking.addEventListener("success", () => {
      const record = write(looking.result);
      if (record) store.put(record);
    });
    return looking;
  });

async function drop(id) {
  unkept.delete(id);
  await run("readwrite", (store) => store.delete(id)).catch(() => {});
}

export const conversations = {
  /** All of them, the newest first. */
  async all() {
    const found = await run("readonly", (store) => store.getAll()).catch(() => []);
    const kept = found.filter(({ id }) => !unkept.has(id));
    return [...kept, ...unkept.values()].sort((one, other) => other.at - one.at);
  },
  get: async (id) => unkept.get(id) ?? run("readonly", (store) => store.get(id)).catch(() => undefined),
  /** A new one, which is kept once it is saved. */
  fresh: () => ({ id: identity(), title: "", at: 0, messages: [] }),
  /** The beginning of one, before its message `at`, as one of its own. */
  branch: ({ title, messages }, at) => ({ id: identity(), title: at > 0 ? title : "", at: 0, messages: messages.slice(0, at) }),
  /** Take one up: what another page writes to it from now on is not to be written over. */
  take: (record) => ({ ...record, seen: version(record) }),
  /**
   * Keep `record` as it is now. If another page has written something else to it since it was taken up, that stays,
   * and this one is kept beside it under a new id. A new name that somebody has given it stays as well.
   * Return {apart, kept}: whether it is beside another one now, and whether it outlasts this page.
   */
  async save(record) {
    const at = Date.now();
    let apart = false;
    const write = (stored) => {
      if (stored && stored.by !== page && version(stored) !== record.seen && !includes(record, stored)) {
        record.id = identity();
        apart = true;
      } else if (stored?.title) record.title = stored.title;
      Object.assign(record, { by: page, at });
      return structuredClone(record);
    };
    try {
      await change(record.id, (stored) => write(unkept.get(record.id) ?? stored));
      unkept.delete(record.id);
      return { apart, kept: true };
    } catch {
      const held = write(unkept.get(record.id));
      unkept.set(held.id, held);
      return { apart, kept: false };
    }
  },
  /** Give one another name; nothing else of it changes. */
  async rename(id, title) {
    const held = unkept.get(id);
    if (held) held.title = title;
    else await change(id, (stored) => stored && { ...stored, title }).catch(() => {});
  },
  async remove(id) {
    await drop(id);
    removals.postMessage(id);
  },
  /** Call `hear(id)` when another page has deleted one; from then on nothing of it may be saved. */
  onRemoved(hear) {
    removals.onmessage = async ({ data }) => {
      hear(data);
      await drop(data); // this page may have saved it after the deletion, before it heard of that
    };
  },
};

/** A small choice, as JSON: `choice("draft").get()`, `.set(value)`; in `sessionStorage` for this tab. */
export function choice(name, storage = "localStorage") {
  const key = `${NAME} ${name}`;
  const unheld = `${storage} ${key}`;
  return {
    get() {
      if (choices.has(unheld)) return choices.get(unheld);
      try {
        return JSON.parse(window[storage].getItem(key));
      } catch {
        return null;
      }
    },
    set(value) {
      try {
        window[storage].setItem(key, JSON.stringify(value));
        choices.delete(unheld);
      } catch {
        choices.set(unheld, value);
      }
    },
  };
}
