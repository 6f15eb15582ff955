// The service under /v1: every answer is JSON or a file, every refusal says why in words.

/** A refusal of the service, or its absence. */
export class Refusal extends Error {
  constructor(title, detail, status) {
    super(detail || title);
    this.title = title;
    this.status = status;
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refusal('No answer', 'The server does not answer: is it still running?', 0);
  }
  if (response.ok) return response;
  let problem = {};
  try {
    problem = await response.json();
  } catch { /* a proxy's page, no problem of ours */ }
  throw new Refusal(problem.title || response.statusText, problem.detail, response.status);
}

const json = (body) => ({
  method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body),
});

export const get = async (path, options) => (await request(path, options)).json();
export const post = async (path, body, options) => (await request(path, {...json(body), ...options})).json();

/** Ask for what may take long until it is there, and tell how far it is. */
export async function waitFor(path, options, tell) {
  for (let pause = 150; ; pause = Math.min(1500, pause * 1.5)) {
    const response = await request(`${path}?wait=false`, options);
    const answer = await response.json();
    if (response.status !== 202) return answer;
    tell(answer);
    await new Promise((done) => { setTimeout(done, pause); });
  }
}

export const postAndWait = (path, body, tell, options) => waitFor(path, {...json(body), ...options}, tell);

/** Hand a picture to the server; it answers with the name under which it may be searched with. */
export async function upload(file) {
  const response = await request('v1/uploads', {
    method: 'POST', body: file, headers: {'Content-Type': file.type || 'application/octet-stream'},
  });
  return response.json();
}

/** Ask for a file and hand it to the browser's downloads. */
export async function download(path, body, name) {
  const response = await request(path, body && json(body));
  const said = /filename="?([^";]+)/.exec(response.headers.get('Content-Disposition') || '');
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await response.blob());
  link.download = said ? said[1] : name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
