// Browsers start no workers for pages that are opened from a folder. This one runs its script in a
// hidden frame instead, so that the search of the documentation works there too.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = (this.inside = frame.contentWindow);
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = inside.document.createElement("script");
      this.ready = new Promise((resolve) => (script.onload = resolve));
      script.src = url;
      inside.document.body.append(script);
    }
    postMessage(data) {
      const message = () => this.inside.dispatchEvent(new MessageEvent("message", { data }));
      this.ready.then(message);
    }
    terminate() {
      this.inside.frameElement.remove();
    }
  };
