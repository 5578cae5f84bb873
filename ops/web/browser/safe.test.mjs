// Who else may read or change anything through ops ui: nobody.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { attacker, careless } from './attacker.mjs';
import { hashes, launch, open, settings, ui } from './harness.mjs';

let browser, server, mine;
before(async () => {
  [browser, server] = await Promise.all([launch(), ui()]);
  mine = await open(browser, server.address); // the session of the person who started it
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

// visit opens an attacker's page in the session and returns what its tries got and what they were answered.
async function visit(target) {
  const page = await mine.context().newPage();
  const answers = {};
  const record = r => {
    if (r.url().startsWith(new URL(target.page).origin)) {
      (answers[`${r.request().method()} ${new URL(r.url()).pathname}`] ??= new Set()).add(r.status());
    }
  };
  mine.context().on('response', record);
  const elsewhere = await attacker(target);
  await page.goto(elsewhere.origin);
  await page.waitForFunction('window.results');
  const results = await page.evaluate('window.results');
  mine.context().off('response', record);
  for (const other of mine.context().pages()) if (other !== mine) await other.close();
  await elsewhere.stop();
  return { results, answers };
}

test('the tries of a page of another origin are real: a server that protects nothing gives in', async t => {
  const { origin, received, stop } = await careless();
  t.after(stop);
  const at = name => `${origin}/${name}`;
  const { results } = await visit({ page: at('page'), change: at('change'), fields: { a: 'b' }, picture: at('picture'),
    video: at('video'), script: at('script'), style: at('style'), events: at('events') });
  for (const name of ['fetch', 'fetch with a header', 'POST of a form', 'POST of JSON', 'img', 'script', 'style',
    'EventSource']) {
    assert.notEqual(results[name], '', name);
  }
  assert.ok(received.filter(r => r === 'POST change').length >= 7, received.join(', '));
  assert.ok(received.includes('GET change') && received.includes('GET page'), received.join(', '));
});

test('a page of another origin reads and changes nothing', async () => {
  const before = hashes();
  const at = path => server.origin + path;
  const fields = { do: 'add', sample: `${settings.mp4v}:0`, reason: 'hacked', back: '/samples' };
  const { results, answers } = await visit({ page: at('/samples'), change: at('/flags'), fields,
    picture: at('/static/icon.svg'), video: at('/media'), script: at('/static/app.js'),
    style: at('/static/style.css'), events: at('/run/events') });
  for (const [name, got] of Object.entries(results)) assert.equal(got, '', name);
  assert.deepEqual([...answers['POST /flags']], [403]);
  assert.deepEqual(hashes(), before);
});

test('a name that somebody points at this machine is no name of the server', async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  const answer = await page.goto(server.address.replace('127.0.0.1', 'rebind.test'));
  assert.equal(answer.status(), 403);
  assert.match(await page.textContent('body'), /rebind\.test/);
  assert.deepEqual(await context.cookies(), []);
  await context.close();
  const [cookie] = await mine.context().cookies();
  const ask = (headers, method = 'GET') => new Promise((resolve, reject) => http.request(`${server.origin}/samples`,
    { method, headers: { Cookie: `${cookie.name}=${cookie.value}`, ...headers } },
    r => resolve(r.resume().statusCode)).on('error', reject).end());
  assert.equal(await ask({}), 200);
  for (const host of ['rebind.test', `rebind.test:${new URL(server.origin).port}`, '127.0.0.1.rebind.test',
    'localhost.rebind.test']) {
    const status = await ask({ Host: host });
    assert.ok(status === 400 || status === 403, `${host}: ${status}`);
  }
  for (const origin of ['http://rebind.test', 'null', server.origin.replace('http:', 'https:'), `${server.origin}0`]) {
    assert.equal(await ask({ Origin: origin }), 403, origin);
  }
});

test('without the token there is nothing, and it stays out of addresses and scripts', async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  for (const path of ['/samples', '/run', '/failures', '/flags', '/static/app.js', '/?token=wrong']) {
    const answer = await page.goto(server.origin + path);
    assert.equal(answer.status(), 401, path);
    assert.ok(!(await page.content()).includes(settings.mp4v), path);
  }
  await context.close();
  const token = new URL(server.address).searchParams.get('token');
  assert.ok(!mine.url().includes(token), mine.url());
  assert.equal(await mine.evaluate('document.cookie'), '');
});

test('--read-only shows no control that changes anything, and refuses what is sent all the same', async t => {
  const before = hashes();
  const quiet = await ui('--read-only');
  t.after(quiet.stop);
  const page = await open(browser, quiet.address, { expected: /403/ });
  for (const path of ['/samples', `/sample/${settings.mp4v}/0`, '/run', '/failures', '/flags']) {
    await page.goto(quiet.origin + path);
    const controls = page.locator('form[method=post] :is(button, select, input:not([type=hidden]))');
    assert.equal(await controls.count(), 0, path);
    await page.locator('header .badge', { hasText: 'read only' }).waitFor();
  }
  const statuses = await page.evaluate(fields => Promise.all(
    ['/flags', '/flags/plan', '/failures/replay', '/run/delivery'].map(path => fetch(path,
      { method: 'POST', body: new URLSearchParams(fields) }).then(r => r.status))),
  { do: 'add', sample: `${settings.mp4v}:0`, reason: 'no', which: 'all', back: '/run' });
  assert.deepEqual(statuses, [403, 403, 403, 403]);
  assert.deepEqual(hashes(), before);
  await page.context().close();
});
