// What this browser keeps: conversations in IndexedDB, small choices in its other storages.
// Where a browser allows neither (private windows), things last as long as the page.

const NAME = "trio-ai-stream";
const memory = new Map();
let opened = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
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

async function run(mode, act, otherwise) {
  try {
    const store = (await database()).transaction("conversations", mode).objectStore("conversations");
    return await new Promise((resolve, reject) => {
      const request = act(store);
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  } catch {
    return otherwise();
  }
}

export const conversations = {
  /** All of them, the newest first. */
  async all() {
    const found = await run("readonly", (store) => store.getAll(), () => [...memory.values()]);
    return found.sort((one, other) => other.at - one.at);
  },
  get: (id) => run("readonly", (store) => store.get(id), () => memory.get(id)),
  /** A new one, which is kept once it is saved. */
  fresh: () => ({ id: identity(), title: "", at: 0, messages: [] }),
  /** Take one up: what another page writes to it from now on is not to be written over. */
  take: (record) => ({ ...record, seen: version(record) }),
  /**
   * Keep `record` as it is now. If another page has written something else to it since it was taken up, that stays,
   * and this one is kept beside it under a new id; returns whether that was so.
   */
  async save(record) {
    const at = Date.now();
    let apart = false;
    const write = (stored) => {
      if (stored && stored.by !== page && version(stored) !== record.seen && !includes(record, stored)) {
        record.id = identity();
        apart = true;
      }
      Object.assign(record, { by: page, at });
      return structuredClone(record);
    };
    const act = (store) => {
      const looking = store.get(record.id);
      // In one transaction: no other page can write in between.
      looking.addEventListener("success", () => store.put(write(looking.result)));
      return looking;
    };
    await run("readwrite", act, () => {
      const kept = write(memory.get(record.id));
      memory.set(kept.id, kept);
    });
    return apart;
  },
  put: (record) => run("readwrite", (store) => store.put(record), () => memory.set(record.id, record)),
  remove: (id) => run("readwrite", (store) => store.delete(id), () => memory.delete(id)),
};

/** A small choice, as JSON: `choice("draft").get()`, `.set(value)`; in `sessionStorage` for this tab. */
export function choice(name, storage = "localStorage") {
  const key = `${NAME} ${name}`;
  return {
    get() {
      try {
        return JSON.parse(window[storage].getItem(key));
      } catch {
        return memory.get(key) ?? null;
      }
    },
    set(value) {
      try {
        window[storage].setItem(key, JSON.stringify(value));
      } catch {
        memory.set(key, value);
      }
    },
  };
}
