"""What moves on the page of a run: pictures by kind of mistake, masks over images, edges that say what they are."""

SCRIPT_STYLE = """
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:1em 0}
.card{flex:1 1 150px;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.7em 1em}
.card b{display:block;font-size:1.5em;line-height:1.3}.card small{color:var(--soft);display:block}
.card .good{color:var(--good)}.card .bad{color:var(--bad)}
.layers{position:relative;display:inline-block;max-width:100%;line-height:0}
.layers .layer{position:absolute;left:0;top:0;width:100%;height:100%;border-color:transparent}
.layers .layer:nth-of-type(2){opacity:var(--truth,0)}.layers .layer:nth-of-type(3){opacity:var(--guess,.6)}
.dial{display:flex;flex-wrap:wrap;gap:.5em 1em;align-items:center;max-width:560px}
.dial input{flex:1 1 220px;min-width:0}
.dial span{color:var(--soft)}.key span{display:inline-block;margin:0 1em .3em 0}
.key i{display:inline-block;width:.9em;height:.9em;border-radius:3px;margin-right:.4em;vertical-align:-.1em}
.hit{pointer-events:stroke;cursor:pointer;outline:none}.hit:focus,.hit:hover{stroke:#e09f3e;opacity:.45}
#about{display:block;min-height:3em}figure[hidden]{display:none}
pre{overflow-x:auto;background:var(--card);padding:.6em 1em;
border-radius:8px}details summary{cursor:pointer}
"""
SCRIPT = """
const all=(what)=>[...document.querySelectorAll(what)];
const tell=(id,text)=>{const place=document.getElementById(id);if(place)place.textContent=text;};
const mistakes=all('.mistake'),shown=all('figure[data-truth]');
for(const button of mistakes)button.addEventListener('click',()=>{
 const on=button.getAttribute('aria-pressed')!=='true';
 for(const other of mistakes)other.setAttribute('aria-pressed',String(on&&other===button));
 const same=(one)=>one.dataset.truth===button.dataset.truth&&one.dataset.guess===button.dataset.guess;
 for(const one of shown)one.hidden=on&&!same(one);
 const left=shown.filter((one)=>!one.hidden).length;
 tell('filtered',on?left+' of '+shown.length+' pictures: '+button.getAttribute('aria-label'):'');
});
const dial=document.getElementById('dial');
function lay(){
 const at=Number(dial.value),root=document.documentElement.style;
 root.setProperty('--truth',.7*Math.max(0,1-Math.abs(at-1)));
 root.setProperty('--guess',.7*Math.max(0,at-1));
 dial.setAttribute('aria-valuetext',['image','truth','prediction'][Math.round(at)]);
}
if(dial){dial.addEventListener('input',lay);lay();}
for(const edge of all('.hit'))for(const kind of ['click','focus','mouseenter'])
 edge.addEventListener(kind,()=>tell('about',edge.querySelector('title').textContent));
"""
"""Works without: all pictures are shown then, predictions lie over images, and edges have titles."""
