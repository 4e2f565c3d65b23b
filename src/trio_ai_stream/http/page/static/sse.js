// Server-sent events from text, in whatever cuts it arrives (WHATWG HTML, section 9.2.6).

export class EventParser {
  #rest = "";
  #first = true;
  #afterReturn = false;
  #type = "";
  #data = [];
  #id = "";

  /** Return the events that `text` completes, as {type, data, id}. */
  push(text) {
    if (text === "") return [];
    if (this.#first) text = text.replace(/^\uFEFF/, "");
    this.#first = false;
    // A CRLF may be cut in two; its CR has ended the line already.
    if (this.#afterReturn && text.startsWith("\n")) text = text.slice(1);
    this.#afterReturn = text === "" || text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) this.#line(line, events);
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#data.length > 0) {
        events.push({ type: this.#type || "message", data: this.#data.join("\n"), id: this.#id });
      }
      this.#type = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id") this.#id = value;
  }
}

/** Yield the events of a fetch response, all of one network chunk together; comments are none. */
export async function* readEvents(response) {
  const parser = new EventParser();
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
