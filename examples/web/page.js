// The page: pictures and labels in, bars out. worker.js does the work.
const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
const waiting = new Map();
let calls = 0, picture, turn = 0, independent = false;
let embedded;  // the prompts that the worker has embedded, or is about to

worker.onmessage = ({ data: { id, value, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(value);
  else reject(new Error(error));
};
worker.onerror = (event) => fail(event.message || 'this browser runs no module workers');

function call(name, ...args) {
  return new Promise((resolve, reject) => {
    waiting.set(++calls, { resolve, reject });
    worker.postMessage({ id: calls, name, args });
  });
}

function fail(message) {
  $('error').textContent = message;
  $('error').hidden = message === '';
  document.body.dataset.state = message === '' ? 'busy' : 'failed';
}

const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
const labels = () => $('labels').value.split('\n').map((line) => line.trim()).filter((line) => line !== '');
const prompt = (label) => $('template').value.replaceAll('{}', () => label);  // a function: "$&" in a label is no pattern

function show(names, scores) {
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a]).slice(0, 8);
  $('results').replaceChildren(...order.map((i, rank) => {
    const row = document.createElement('li');
    const percent = `${(100 * scores[i]).toFixed(1)} %`;
    row.className = rank === 0 ? 'best' : '';
    row.innerHTML = '<span class="label"></span><output></output><span class="track"><span class="bar"></span></span>';
    row.querySelector('.label').textContent = names[i];
    row.querySelector('.bar').style.width = `${100 * scores[i]}%`;
    row.querySelector('output').textContent = percent;
    return row;
  }));
  $('rule').textContent = independent ? 'each label on its own' : 'shares of all labels';
}

/** Embeds the labels if they are new, then the picture; a later call overtakes an earlier one. */
async function update() {
  const mine = ++turn;
  fail('');
  try {
    const names = labels();
    if (names.length === 0) throw new Error('Write at least one label.');
    if (!$('template').value.includes('{}')) throw new Error('The prompt needs {} for the label.');
    const prompts = names.map(prompt);
    if (embedded !== prompts.join('\n')) {
      embedded = prompts.join('\n');
      const { ms } = await call('read', prompts);
      $('text-time').textContent = `${names.length} ${names.length === 1 ? 'label' : 'labels'} in ${milliseconds(ms)}`;
    }
    if (picture === undefined || mine !== turn) return;
    const { ms, scores } = await call('classify', picture);
    if (mine !== turn) return;
    $('image-time').textContent = `picture in ${milliseconds(ms)}`;
    show(names, scores);
    document.body.dataset.state = 'ready';
  } catch (error) {
    if (mine !== turn) return;
    embedded = undefined;
    $('results').replaceChildren();
    fail(error.message);
  }
}

function take(blob, name) {
  picture = blob;
  URL.revokeObjectURL($('preview').src);
  $('preview').src = URL.createObjectURL(blob);
  $('preview').alt = name;
  $('name').textContent = name;
  document.body.classList.add('has-picture');
  for (const button of $('samples').children) button.setAttribute('aria-pressed', button.title === name);
  return update();
}

async function openModel(from, name) {
  fail('');
  $('model').textContent = `${name} ...`;
  try {
    const opened = await call('open', from);
    independent = opened.independent;
    $('model').textContent = `${name}, ${(opened.bytes / 1e6).toFixed(1)} MB`;
    embedded = undefined;
    await update();
  } catch (error) {
    $('model').textContent = name;
    $('results').replaceChildren();
    fail(`${name}: ${error.message}`);
  }
}

async function sample(name) {
  const response = await fetch(`pictures/${name}`);
  if (!response.ok) throw new Error(`pictures/${name}: ${response.status} ${response.statusText}`);
  return take(await response.blob(), name);
}

function takeFile(file) {
  if (file === undefined) return;
  if (file.name.endsWith('.oc')) openModel(file, file.name);
  else take(file, file.name);
}

function listen() {
  const drop = $('drop');
  for (const type of ['dragenter', 'dragover', 'dragleave', 'drop'])
    document.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', type === 'dragenter' || type === 'dragover');
    });
  document.addEventListener('drop', (event) => takeFile(event.dataTransfer.files[0]));
  document.addEventListener('paste', (event) => takeFile(event.clipboardData.files[0]));
  $('file').addEventListener('change', () => (takeFile($('file').files[0]), $('file').value = ''));
  $('preview').addEventListener('error', () => document.body.classList.remove('has-picture'));
  let timer;
  for (const input of [$('labels'), $('template')])
    input.addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(update, 300);
    });
  $('kernels').addEventListener('change', () => {
    query.set('kernels', $('kernels').value);
    if ($('kernels').value === '') query.delete('kernels');
    location.search = query;
  });
}

async function start() {
  listen();
  $('kernels').value = query.get('kernels') ?? '';
  $('running').textContent = await call('start', query.get('kernels'));
  const lines = async (url) => (await (await fetch(url)).text()).split('\n').filter((line) => line !== '');
  $('labels').value = (await lines('labels.txt')).join('\n');
  const names = await lines('pictures.txt');
  $('samples').replaceChildren(...names.map((name) => {
    const button = document.createElement('button');
    button.title = name;
    button.innerHTML = '<img alt="">';
    button.firstChild.src = `pictures/${name}`;
    button.addEventListener('click', () => sample(name).catch((error) => fail(error.message)));
    return button;
  }));
  await openModel(query.get('model') ?? 'demo.oc', query.get('model') ?? 'demo.oc');
  if (picture === undefined) await sample(query.get('picture') ?? names[0]);
}

start().catch((error) => fail(error.message));
