// A server of another origin, whose page tries to read and to change what another server has.
import http from 'node:http';

// attacker starts it. Its page sets window.results: what each try got, "" for nothing.
export async function attacker(target) {
  return serve((request, response) => {
    response.setHeader('Content-Type', 'text/html');
    response.end(`<!doctype html><title>elsewhere</title><body><script>(${tries})(${JSON.stringify(target)})</script>`);
  });
}

// careless starts a server that protects nothing: what reaches it shows that the tries are real. received are the
// requests to it.
export async function careless() {
  const received = [];
  const types = { picture: 'image/svg+xml', script: 'text/javascript', style: 'text/css', events: 'text/event-stream' };
  const texts = { picture: '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', script: '', style: '',
    events: 'data: secret\n\n' };
  const server = await serve((request, response) => {
    const name = request.url.slice(1).split('?')[0];
    received.push(`${request.method} ${name}`);
    response.setHeader('Access-Control-Allow-Origin', request.headers.origin ?? '*');
    response.setHeader('Access-Control-Allow-Credentials', 'true');
    response.setHeader('Access-Control-Allow-Headers', 'X-Requested-With, Content-Type');
    response.setHeader('Content-Type', types[name] ?? 'text/html');
    response.write(texts[name] ?? 'secret');
    if (name !== 'events') response.end();
  });
  return { ...server, received };
}

async function serve(answer) {
  const server = http.createServer(answer);
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  server.unref();
  const stop = () => server.closeAllConnections() ?? server.close();
  return { origin: `http://127.0.0.1:${server.address().port}`, stop };
}

// tries runs in the attacker's page.
async function tries(target) {
  const limit = new Promise(resolve => setTimeout(resolve, 20_000, ''));
  const load = (tag, attributes) => new Promise(resolve => {
    const e = Object.assign(document.createElement(tag), attributes);
    e.onload = e.onloadeddata = () => resolve(e);
    e.onerror = () => resolve(null);
    document.body.append(e);
  });
  const ask = (address, options) => fetch(address, { credentials: 'include', ...options })
    .then(async r => r.type === 'opaque' ? '' : `${r.status} ${await r.text()}`).catch(() => '');
  const post = options => ask(target.change, { method: 'POST', ...options });
  const read = frame => {
    try {
      return frame.location.href === 'about:blank' ? '' : frame.document.documentElement.outerHTML;
    } catch {
      return '';
    }
  };
  const form = (method, enctype) => new Promise(resolve => {
    const frame = Object.assign(document.createElement('iframe'), { name: `form${Math.random()}` });
    const f = Object.assign(document.createElement('form'), { method, enctype, action: target.change,
      target: frame.name });
    for (const [name, value] of Object.entries(target.fields)) {
      f.append(Object.assign(document.createElement('input'), { name, value }));
    }
    document.body.append(frame, f);
    frame.onload = () => resolve(read(frame.contentWindow));
    f.submit();
  });
  const socket = (kind, address, option) => new Promise(resolve => {
    const s = new kind(address, option);
    s.onopen = () => resolve('open');
    s.onmessage = e => resolve(`message ${e.data}`);
    s.onerror = () => resolve('');
  });
  const fields = new URLSearchParams(target.fields);
  const all = {
    'fetch': ask(target.page, {}),
    'fetch no-cors': ask(target.page, { mode: 'no-cors' }),
    'fetch with a header': ask(target.page, { headers: { 'X-Requested-With': 'x' } }),
    'fetch of events': ask(target.events, { signal: AbortSignal.timeout(1000) }),
    'POST of a form': post({ body: fields }),
    'POST of a form, no-cors': post({ mode: 'no-cors', body: fields }),
    'POST of JSON': post({ headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(target.fields) }),
    'POST of JSON as text': post({ mode: 'no-cors', headers: { 'Content-Type': 'text/plain' },
      body: JSON.stringify(target.fields) }),
    'beacon': Promise.resolve(navigator.sendBeacon(target.change, fields) && ''),
    'form POST': form('post', 'application/x-www-form-urlencoded'),
    'form POST as text': form('post', 'text/plain'),
    'form GET': form('get', ''),
    'img': load('img', { src: target.picture }).then(e => e?.naturalWidth ? `${e.naturalWidth} pixels` : ''),
    'video': load('video', { src: target.video }).then(e => e?.videoWidth ? `${e.videoWidth} pixels` : ''),
    'script': load('script', { src: target.script }).then(e => e ? 'loaded' : ''),
    'style': load('link', { rel: 'stylesheet', href: target.style }).then(e => e ? 'loaded' : ''),
    'iframe': load('iframe', { src: target.page }).then(e => read(e.contentWindow)),
    'object': load('object', { data: target.page }).then(e => e?.contentWindow ? read(e.contentWindow) : ''),
    'popup': new Promise(resolve => {
      const popup = window.open(target.page);
      const got = setInterval(() => read(popup) && resolve(read(popup)), 50);
      setTimeout(() => resolve(clearInterval(got) ?? ''), 3000);
    }),
    'EventSource': socket(EventSource, target.events, { withCredentials: true }),
    'WebSocket': socket(WebSocket, target.page.replace('http', 'ws'), []),
  };
  const results = {};
  await Promise.all(Object.entries(all).map(async ([name, got]) => {
    results[name] = await Promise.race([got, limit]);
  }));
  window.results = results;
}
