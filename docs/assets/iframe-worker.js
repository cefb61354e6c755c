// Browsers start no Worker from file: pages, and the site's search runs in one. This runs the script in a hidden frame
// instead, so that search works when the site is opened from disk. Served over HTTP, the browser's own Worker is used.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe");
    #ready;

    constructor(url) {
      super();
      this.#frame.hidden = true;
      document.body.append(this.#frame);
      const frame = this.#frame.contentWindow;
      frame.postMessage = (data) => this.#receive(data);
      this.#ready = this.#load(url);
    }

    postMessage(data) {
      this.#ready.then(() => {
        this.#frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
      });
    }

    terminate() {
      this.#frame.remove();
    }

    #receive(data) {
      const event = new MessageEvent("message", { data });
      this.onmessage?.(event);
      this.dispatchEvent(event);
    }

    #load(url) {
      return new Promise((resolve, reject) => {
        const script = this.#frame.contentDocument.createElement("script");
        script.src = url;
        script.onload = resolve;
        script.onerror = reject;
        this.#frame.contentDocument.body.append(script);
      });
    }
  };
}
