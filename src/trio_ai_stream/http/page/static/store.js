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
