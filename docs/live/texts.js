// Every text of the page, [Chinese, English]. {name} is filled in.

const TEXTS = {
  // The frame
  title: ["看编码器-解码器怎样工作", "Watch an encoder-decoder at work"],
  subtitle: [
    "一个训练好的编码器-解码器就在你的浏览器里运行，每一步、每一个数都可以打开看。模型很小，也会出错。",
    "A trained encoder-decoder runs in your browser. Every step and every number of it can be opened. It is small and errs at times.",
  ],
  skip: ["跳到当前步骤", "Skip to the current step"],
  language: ["English", "中文"],
  "theme.dark": ["深色", "Dark"],
  "theme.light": ["浅色", "Light"],
  footer: [
    "所有数字都由模型当场算出，没有一个是事先写好的。不联网，输入的文字不会离开这台电脑。Transformer 的权重舍入到 8 位，所以得分和课程里的略有不同。",
    "All numbers are computed here and now by the model. Nothing that you type leaves your computer. Weights of Transformers are rounded to 8 bits, so scores differ a little from those of the course.",
  ],
  "ask.model": ["模型", "Model"],
  "ask.text": ["输入", "Text"],
  "ask.go": ["运行", "Run"],
  "ask.examples": ["例子", "Examples"],
  "model.zh-en-small": ["中文 → 英文（zh-en-small）", "Chinese → English (zh-en-small)"],
  "model.en-zh-small": ["英文 → 中文（en-zh-small）", "English → Chinese (en-zh-small)"],
  "model.g2p-en": ["字母 → 音素（g2p-en）", "Letters → phonemes (g2p-en)"],
  "model.g2p-en-distilled": ["字母 → 音素，小（g2p-en-distilled）", "Letters → phonemes, small (g2p-en-distilled)"],
  "model.rnn-additive": ["字母 → 音素，循环网络加注意力", "Letters → phonemes, RNN with attention"],
  "model.rnn-fixed": ["字母 → 音素，循环网络，固定上下文", "Letters → phonemes, RNN with fixed context"],
  "list.comma": ["，", ", "],
  journey: ["步骤和输出", "Steps and output"],
  steps: ["步骤", "Steps"],
  stage: ["当前步骤", "Current step"],
  back: ["后退", "Back"],
  forward: ["前进", "Forward"],
  play: ["播放", "Play"],
  pause: ["暂停", "Pause"],
  waits: ["模型算到这一步就会显示。", "This appears as soon as the model has come this far."],
  computing: ["正在计算……", "Computing …"],
  "loading.model": ["正在载入模型 {name}：{share}%", "Loading the model {name}: {share} %"],
  "error.long": [
    "这段文字有 {count} 个词元，这里最多 {most} 个。请缩短一些。",
    "This text has {count} tokens; at most {most} can be shown here. Please shorten it.",
  ],
  "error.empty": [
    "还没有文字。请输入一句话，或者点一个例子。",
    "There is no text yet. Type a sentence, or choose an example.",
  ],
  "error.network": [
    "有文件没有载入。请确认网页是由服务器打开的（例如 python -m http.server），并且文件夹完整。（{why}）",
    "A file could not be loaded. Open the page from a server (such as python -m http.server), with its folder complete. ({why})",
  ],
  "error.load": ["{what} 没有载入：{why}", "{what} could not be loaded: {why}"],
  "error.missing": [
    "缺少文件：{why}。请用 python docs/live/build.py 重新生成这个文件夹。",
    "A file is missing: {why}. Make the folder again with python docs/live/build.py.",
  ],
  "error.wasm": [
    "这个浏览器没有 WebAssembly，模型无法运行。请换一个较新的浏览器，或者打开 WebAssembly。",
    "This browser has no WebAssembly, so the model cannot run. Use a newer browser, or switch WebAssembly on.",
  ],
  "error.any": ["出错了：{why}", "Something went wrong: {why}"],

  // Steps
  "steps.enc": ["编码器", "Encoder"],
  "steps.dec": ["解码器", "Decoder"],
  "step.tokens": ["切词", "Tokens"],
  "step.embed": ["嵌入＋位置", "Embed"],
  "step.end": ["完成", "End"],
  "step.tokens.long": ["切成词元", "From text to tokens"],
  "step.embed.long": ["词嵌入加位置编码", "Embeddings plus positions"],
  "step.enc.long": ["编码器第 {number} 层", "Encoder layer {number}"],
  "step.end.long": ["写完了", "The whole output"],
  "step.forced": ["（你指定的）", " (chosen by you)"],
  "step.dec": ["解码器写第 {number} 个词元：{word}", "The decoder writes token {number}: {word}"],

  // Tokens
  "tokens.lead": [
    "模型不认识文字，只认识编号。这段文字被切成 {count} 个词元（token），每个词元在词表里有一个编号。",
    "A model knows numbers, not letters. The text is cut into {count} tokens, and each has a number in the vocabulary.",
  ],
  "tokens.typed": ["输入", "As typed"],
  "tokens.normalized": ["整理后", "Normalized"],
  "tokens.words": ["先分段", "Cut at borders"],
  "tokens.pieces": ["再切成词元", "Cut into tokens"],
  "tokens.piece": ["第 {number} 个词元 {piece}，编号 {id}", "Token {number}, {piece}, number {id}"],
  "tokens.joins": ["一步一步合并（BPE）", "Joined step by step (BPE)"],
  "tokens.joins.note": [
    "每段先拆成单字，再把相邻的两块合成一块。合并规则是训练词表时学到的，常见的在前；每次用排在最前的那条，直到没有规则可用。",
    "Each part begins as single characters; then two neighbours at a time are joined. The rules were learned with the vocabulary, frequent pairs first; the first rule that applies is used, until none does.",
  ],
  "tokens.joins.start": ["单字", "characters"],
  "tokens.joins.rank": ["第 {rank} 条规则", "rule {rank}"],
  "tokens.note": [
    "词表有 {size} 个词元：常见的词是一个词元，少见的词由几个拼成。▁ 表示词前的空格，</s> 表示结束。指着或点一个词元，看它来自哪几个字。",
    "The vocabulary has {size} tokens: a common word is one of them, a rare one is put together from several. ▁ is the space before a word, </s> the end of the text. Point at a token to see where it comes from.",
  ],
  "tokens.letters": [
    "这个模型的词表只有 {size} 个词元：每个字母是一个词元，每个音素也是一个。</s> 表示结束。",
    "The vocabulary of this model has only {size} tokens: each letter is one, and so is each phoneme. </s> is the end.",
  ],
  "tokens.unknown": [
    "<unk> 是词表里没有的字符，模型读不出那是什么。字母模型只认识英文字母。",
    "<unk> is a character that the vocabulary lacks: the model cannot tell what it is. Models of letters know English letters alone.",
  ],
  "tokens.bytes": [
    "<0x…> 是字节：词表里没有的字，拆成几个字节来写，所以什么字都能读。",
    "<0x…> is a byte: a character that is not in the vocabulary is written as its bytes, so that any text can be read.",
  ],

  // Matrices
  "matrix.label": [
    "{name}：每行一个词元（{rows}），{width} 列。用方向键逐格查看。",
    "{name}: a row for each token ({rows}), {width} columns. The arrow keys move from number to number.",
  ],
  "matrix.hint": [
    "指着或点一个格子，或者用方向键，查看数值。",
    "Point at a cell, or use the arrow keys, to read its number.",
  ],
  "matrix.cell": ["“{token}”，第 {place} 维：{value}", "“{token}”, dimension {place}: {value}"],

  // Embedding
  "embed.lead": [
    "每个词元换成一个有 {width} 个数的向量，再加上一个只由位置决定的向量。和就是第一层的输入。",
    "Each token is replaced by a vector of {width} numbers, and a vector is added that depends on its position alone. The sum enters the first layer.",
  ],
  "embed.word": ["词嵌入 × √d", "Embedding × √d"],
  "embed.word.note": [
    "训练时学到的。同一个词元不管在哪里，向量都一样；乘以 √{width}，免得被位置编码盖住。",
    "Learned in training. A token has the same vector wherever it is; it is multiplied by √{width} so that positions do not drown it.",
  ],
  "embed.position": ["位置编码", "Positions"],
  "embed.position.note": [
    "不用学：每对维度是一个正弦和一个余弦，越往右，随位置变化越慢。",
    "Not learned: each pair of dimensions is a sine and a cosine; the further right, the more slowly they change with the position.",
  ],
  "embed.position.off": [
    "位置编码已关闭：加上的全是 0，模型不知道哪个词元在前。",
    "Positions are switched off: zeros are added, and the model does not know which token comes first.",
  ],
  "embed.sum": ["两者之和", "Their sum"],
  "embed.sum.note": [
    "注意力本身不分先后，顺序全靠加进来的这一份。",
    "Attention itself knows no order: all that it learns of it is what was added here.",
  ],
  "embed.sine": [
    "“{token}”，第 {place} 维：sin({position} / 10000^({pair}/{width})) = {value}",
    "“{token}”, dimension {place}: sin({position} / 10000^({pair}/{width})) = {value}",
  ],
  "embed.cosine": [
    "“{token}”，第 {place} 维：cos({position} / 10000^({pair}/{width})) = {value}",
    "“{token}”, dimension {place}: cos({position} / 10000^({pair}/{width})) = {value}",
  ],
  "embed.adds": [
    "“{token}”，第 {place} 维：{left} + {right} = {value}",
    "“{token}”, dimension {place}: {left} + {right} = {value}",
  ],

  // Layers
  "enc.lead": [
    "每个词元先看一遍全句（自注意力），再各自经过一个前馈网络。每一步的结果都加回输入，再做层归一化。",
    "Each token looks at the whole text (self-attention), then passes through a feed-forward network by itself. Each result is added to what went in, and normalized.",
  ],
  "dec.lead": [
    "解码器读已经写出的词元，也看输入，给出下一个词元的概率。",
    "The decoder reads what has been written, looks at the source, and gives each token a probability of being next.",
  ],
  "dec.lead.off": [
    "解码器读已经写出的词元，给出下一个词元的概率。交叉注意力已关闭，所以它看不到输入。",
    "The decoder reads what has been written, and gives each token a probability of being next. Cross-attention is off, so it does not see the source.",
  ],
  "dec.read": ["已经读到", "It has read"],
  "dec.no-attention": [
    "这个模型没有注意力：整个源词压成一个向量，解码器每一步看到的都是它。",
    "This model has no attention: the whole source is pressed into one vector, which is all that the decoder sees at each step.",
  ],
  "layer.layer": ["层", "Layer"],
  "layer.number": ["第 {number} 层", "Layer {number}"],
  "layer.plan": ["这一层的组成", "Parts of this layer"],
  "box.enc.self": ["多头自注意力", "Multi-head self-attention"],
  "box.enc.self.norm": ["残差连接与层归一化", "Add & norm"],
  "box.enc.ffn": ["前馈网络", "Feed-forward network"],
  "box.enc.ffn.norm": ["残差连接与层归一化", "Add & norm"],
  "box.dec.self": ["带因果掩码的自注意力", "Masked self-attention"],
  "box.dec.self.off": ["自注意力（掩码已关闭）", "Self-attention (mask off)"],
  "box.dec.self.norm": ["残差连接与层归一化", "Add & norm"],
  "box.dec.cross": ["交叉注意力", "Cross-attention"],
  "box.dec.cross.off": ["交叉注意力（已关闭）", "Cross-attention (off)"],
  "box.dec.cross.norm": ["残差连接与层归一化", "Add & norm"],
  "box.dec.ffn": ["前馈网络", "Feed-forward network"],
  "box.dec.ffn.norm": ["残差连接与层归一化", "Add & norm"],
  "states.input": ["x：输入", "x: what goes in"],
  "states.output": ["f(x)：这个子层的输出", "f(x): what the sublayer gives"],
  "states.plus": ["f(x)：子层的输出", "f(x): what the sublayer gives"],
  "states.sum": ["z = x + f(x)：残差连接", "z = x + f(x): residual connection"],
  "states.norm": ["LayerNorm(z)：层归一化", "LayerNorm(z): layer norm"],
  "states.hidden": ["max(0, x W₁ + b₁)：中间层", "max(0, x W₁ + b₁): the hidden layer"],
  "figures.hint": ["点一个格子，下面写出那里的数。", "Click a cell: the numbers there are written out below."],
  "norm.note": [
    "子层的输出加回输入：这样每层只需学“改动”，梯度也能直接传回去。然后把每个词元的向量变成均值 0、标准差 1，再乘以 γ、加上 β（学到的）。",
    "What the sublayer gives is added to what went in: a layer has to learn the change alone, and gradients find a way back. Then each token's vector gets mean 0 and standard deviation 1, and is multiplied by γ and shifted by β (both learned).",
  ],
  "norm.adds": [
    "“{token}”，第 {place} 维：x + f(x) = {x} + {fx} = {sum}",
    "“{token}”, dimension {place}: x + f(x) = {x} + {fx} = {sum}",
  ],
  "norm.norms": [
    "均值 μ = {middle}，标准差 σ = {width}；({sum} − μ) / σ = {regular}，再乘 γ 加 β 得 {norm}",
    "Mean μ = {middle}, standard deviation σ = {width}; ({sum} − μ) / σ = {regular}, times γ plus β is {norm}",
  ],
  "norm.figures": ["“{token}”：第 {place} 维附近的数", "“{token}”: the numbers around dimension {place}"],
  "ffn.note": [
    "每个词元单独经过两个线性层：先放大到 {inner} 维，负数变成 0，再缩回 {width} 维。词元之间在这里互不相干。",
    "Each token by itself passes through two linear layers: up to {inner} numbers, negative ones become 0, and back to {width}. Tokens do not see each other here.",
  ],
  "ffn.units": [
    "“{token}”：{width} 个中间单元里有 {zeros} 个是 0（{share}）；最强的是",
    "“{token}”: {zeros} of {width} hidden units are 0 ({share}); the strongest ones are",
  ],
  "ffn.unit": ["单元", "unit"],
  "ffn.value": ["数值", "value"],

  // Attention
  "attention.enc": [
    "输入里的词元互相看。线越粗，权重越大；颜色是头。",
    "Source tokens look at each other. The thicker the line, the larger the weight; the colour is the head.",
  ],
  "attention.self": [
    "已写的词元互相看。因果掩码不许看后面的词元：线只连到自己和前面，小图里斜线格就是掩码。",
    "Written tokens look at each other. The causal mask hides later tokens: no line leads to them, and they are hatched in the small pictures.",
  ],
  "attention.self.off": [
    "已写的词元互相看。因果掩码已关闭：前面的词元也看得到后面的。",
    "Written tokens look at each other. The causal mask is off: earlier tokens see later ones, too.",
  ],
  "attention.cross": [
    "解码器看输入，从这里取得意思。左边是刚读到的词元，箭头后面是由它写出的下一个。线越粗，权重越大；颜色是头。",
    "The decoder looks at the source and takes the meaning from there. On the left, what it has read last, and what it wrote then. The thicker the line, the larger the weight; the colour is the head.",
  ],
  "attention.cross.off": [
    "交叉注意力已关闭：权重照样算出来，但结果不加进去，解码器看不到输入。",
    "Cross-attention is off: its weights are computed all the same, but what it gives is not added, so the decoder does not see the source.",
  ],
  "attention.one": [
    "写每个词元时看输入的哪里。左边是刚读到的词元，箭头后面是由它写出的下一个。线越粗，权重越大。",
    "Where it looks in the input for each token. On the left, what it has read last, and what it wrote then. The thicker the line, the larger the weight.",
  ],
  "attention.queries": ["谁在看", "Looks"],
  "attention.keys": ["看谁（%，各头平均）", "Is looked at (%, mean of heads)"],
  "attention.keys.one": ["看谁（%）", "Is looked at (%)"],
  "attention.says.one": ["“{token}”最看重：{list}", "“{token}” looks most at {list}"],
  "attention.says": ["“{token}”最看重：{list}（各头平均）", "“{token}” looks most at {list} (mean of heads)"],
  "attention.heads": [
    "每个头一张图：行是谁在看，列是看谁。点开可以看到每个数。",
    "A picture for each head: rows look, columns are looked at. Click one to see its numbers.",
  ],

  // A head
  "head.name.enc": ["编码器第 {layer} 层，第 {head} 个头", "Encoder layer {layer}, head {head}"],
  "head.name.self": [
    "解码器第 {layer} 层自注意力，第 {head} 个头",
    "Decoder layer {layer}, self-attention, head {head}",
  ],
  "head.name.cross": [
    "解码器第 {layer} 层交叉注意力，第 {head} 个头",
    "Decoder layer {layer}, cross-attention, head {head}",
  ],
  "head.is-off": ["{name}（已关闭）", "{name} (switched off)"],
  "head.close": ["返回", "Back"],
  "head.on": ["使用这个头", "Use this head"],
  "head.lead.enc": [
    "每个词元有三个向量：q（我找什么）、k（我有什么）、v（我给什么）。q 和所有的 k 比一比，按相似的程度取 v。",
    "Each token has three vectors: q (what I look for), k (what I have), v (what I give). q is compared with every k, and takes from each v as much as its k is alike.",
  ],
  "head.lead.self": [
    "q、k、v 都来自已写的词元。因果掩码把后面的词元盖住（斜线格）。",
    "q, k and v are all of written tokens. The causal mask hides later tokens (hatched cells).",
  ],
  "head.lead.self.off": [
    "q、k、v 都来自已写的词元。因果掩码已关闭：后面的词元也看得到。",
    "q, k and v are all of written tokens. The causal mask is off: later tokens are seen, too.",
  ],
  "head.lead.cross": [
    "q 来自已写的词元，k 和 v 来自编码器：解码器就这样读输入。",
    "q is of written tokens, k and v come from the encoder: this is how the decoder reads the source.",
  ],
  "head.lead.cross.off": [
    "q 来自已写的词元，k 和 v 来自编码器。但是交叉注意力已关闭：算出来的东西不用。",
    "q is of written tokens, k and v come from the encoder. But cross-attention is off: what is computed here is not used.",
  ],
  "head.who-looks": ["谁在看：", "Looks:"],
  "head.weights": ["权重：每行加起来是 1", "Weights: each row sums to 1"],
  "head.matrix": ["权重矩阵。选中的一行最看重：{list}", "Matrix of weights. The chosen row looks most at {list}"],
  "head.cell": ["“{query}”看“{key}”：{share}", "“{query}” looks at “{key}”: {share}"],
  "head.cell.hidden": ["“{query}”看不到“{key}”：被掩码盖住", "“{query}” cannot see “{key}”: the mask hides it"],
  "head.q": ["q：它的查询", "q: its query"],
  "head.k": ["k：所有词元的键", "k: the keys of all tokens"],
  "head.v": ["v：所有词元的值", "v: the values of all tokens"],
  "head.unscaled": ["不缩放", "not scaled"],
  "head.mask": ["掩码", "mask"],
  "head.seen": ["可见", "seen"],
  "head.scores": ["“{query}”给每个词元打分", "“{query}” scores each token"],
  "head.scores.note": [
    "分数 = q · k / √{width}（√{width} = {root}），softmax 把分数变成权重。点一个词元，看它的分数怎么来。",
    "Score = q · k / √{width} (√{width} = {root}); softmax turns scores into weights. Choose a token to see where its score comes from.",
  ],
  "head.scores.unscaled": [
    "缩放已关闭：分数就是 q · k。数太大时，softmax 几乎把全部权重给一个词元。",
    "Scaling is switched off: the score is q · k itself. Large ones make softmax give nearly all weight to one token.",
  ],
  "head.product": ["“{query}”的 q 乘以“{key}”的 k", "q of “{query}” times k of “{key}”"],
  "head.product.hint": [
    "对应的数相乘，再全部加起来，就是 q · k。点一列，下面写出那里的数。",
    "Numbers at the same place are multiplied, and all of that is added up: q · k. Click a column to write its numbers out.",
  ],
  "head.products": ["“{query}”的 q，“{key}”的 k，和它们的乘积", "q of “{query}”, k of “{key}”, and their products"],
  "head.largest": [
    "这是一行里最大的分数。先减去最大的分数，e 的幂就不会太大，结果不变。",
    "This is the largest score of its row. The largest one is subtracted first, so that powers of e do not overflow; the result is the same.",
  ],
  "head.masked": [
    "“{query}”看不到“{key}”：掩码让分数变成 −∞，softmax 后就是 0。",
    "“{query}” cannot see “{key}”: the mask makes the score −∞, which softmax makes 0.",
  ],
  "head.sum": ["加权求和：这个头的输出", "Weighted sum: what this head gives"],
  "head.sum.note": [
    "每个 v 乘以权重，加起来，就是“{token}”从这个头得到的向量。权重小于 0.5% 的没有画。",
    "Each v times its weight, added up, is the vector that “{token}” gets from this head. Weights under 0.5 % are not drawn.",
  ],
  "head.sum.off": [
    "这个头已关闭：它算出的和不用，“{token}”得到的是 0。",
    "This head is switched off: its sum is not used, and “{token}” gets zeros.",
  ],
  "head.sum.hint": ["指着或点一列，看这一维怎么加出来。", "Point at a column to see how its dimension adds up."],
  "head.sum.zero": ["已关闭", "switched off"],
  "head.result": ["和", "sum"],

  // The next token
  "next.title": ["第 {number} 个词元的概率", "Probabilities of token {number}"],
  "next.note": [
    "解码器最后的向量变成 {size} 个分数，每个词元一个，softmax 变成概率。模型拿不准的程度，相当于在大约 {choices} 个词元里任选一个。点一个词元，看它要是这样写，后面会怎样。",
    "The decoder's last vector becomes {size} scores, one for each token, and softmax makes them probabilities. Now the model is about as unsure as between {choices} equally likely tokens. Click one: what if it had written this?",
  ],
  "next.greedy": ["贪心搜索取最高的一个。", "Greedy search takes the highest one."],
  "next.sample": [
    "按概率抽取：温度 {temperature}，只从合计占 {topP} 的最可能的词元里抽。",
    "It is drawn by chance: temperature {temperature}, from the likeliest tokens that together have {topP}.",
  ],
  "next.beam": [
    "束搜索最后选中了这一个，不一定是当时最高的。",
    "Beam search chose this one in the end; it need not be the highest here.",
  ],
  "next.chosen": ["“{token}”，{share}：写的就是它", "“{token}”, {share}: this was written"],
  "next.force": ["“{token}”，{share}：改写成它", "“{token}”, {share}: write this instead"],
  "next.out": ["不抽", "never drawn"],
  "next.forced": ["这个词元是你指定的。", "You have chosen this token."],
  "next.unforce": ["还是让模型自己写", "Let the model write for itself"],

  // Decoding
  "method.title": ["怎样选下一个词元", "How the next token is chosen"],
  "method.greedy": ["贪心", "Greedy"],
  "method.sample": ["抽样", "Sampling"],
  "method.beam": ["束搜索", "Beam search"],
  "method.greedy.note": ["每次取概率最高的词元，不回头。", "The likeliest token each time, never looking back."],
  "method.sample.note": [
    "按概率抽取，所以每次可以不同。同一个种子，结果相同。",
    "Tokens are drawn by chance, so that outputs differ. The same seed gives the same output.",
  ],
  "method.beam.note": [
    "同时保留几个开头，最后取总分最高的一个。",
    "Several beginnings are kept at a time; in the end the best text wins.",
  ],
  "slider.temperature": ["温度", "Temperature"],
  "slider.temperature.note": [
    "低：只写最有把握的；高：敢写少见的。",
    "Low: only what is sure. High: rare tokens too.",
  ],
  "slider.topP": ["top-p", "Top-p"],
  "slider.topP.note": [
    "只从合计占这么多的最可能的词元里抽。",
    "Draw from the likeliest tokens that together have this much.",
  ],
  "slider.seed": ["种子", "Seed"],
  "slider.seed.note": ["换一个种子，再抽一次。", "Another seed draws again."],
  "slider.beams": ["束宽", "Beams"],
  "slider.beams.note": ["同时保留几个开头。1 就是贪心。", "How many beginnings are kept. 1 is greedy."],
  "slider.penalty": ["长度惩罚 α", "Length penalty α"],
  "slider.penalty.note": [
    "总分 = 对数概率之和 / 长度^α。越大，长的越占便宜。",
    "Score = sum of log p / length^α. Larger ones favour long texts.",
  ],

  // Beams
  "beams.title": ["束搜索的树", "The tree of the beam search"],
  "beams.note": [
    "每一步，{beams} 个开头一共提出 {twice} 个候选，按对数概率之和从上到下排，留下最好的 {beams} 个（实线），其余剪掉（虚线）。方框里是这个词元的 log p，和从头加到这里的和 Σ。以 </s> 结尾的就写完了，总分 = Σ / 长度^{penalty}。橙色是目前最好的。",
    "At each step the {beams} beginnings propose {twice} candidates, sorted from top to bottom by the sum of log p. The best {beams} go on (solid), the others are pruned (dashed). A box has the log p of its token, and Σ, the sum from the start to here. What ends in </s> is finished and scores Σ / length^{penalty}. The best so far is orange.",
  ],
  "beams.start": ["开头", "Start"],
  "beams.step": ["第 {step} 步", "Step {step}"],
  "beams.hint": ["指着或点一个候选，看它的分数。", "Point at a candidate to read its score."],
  "beams.forced": [
    "你指定的词元没有别的候选，它的 log p 是模型本来给它的。",
    "A token that you have chosen has no rivals; its log p is what the model gives it.",
  ],
  "beams.scroll": [
    "树比窗口宽的时候，左右滑动看其余的步。",
    "Where the tree is wider than the window, scroll it sideways to see its other steps.",
  ],
  "beams.node": [
    "“{token}”（{state}）：概率 {share}，log p = {log}，和 = {sum}，总分 = {sum} / {length}^{penalty} = {score}",
    "“{token}” ({state}): probability {share}, log p = {log}, sum = {sum}, score = {sum} / {length}^{penalty} = {score}",
  ],
  "beams.alive": ["保留", "kept"],
  "beams.pruned": ["剪掉", "pruned"],
  "beams.finished": ["写完的，按总分排", "Finished texts, best score first"],
  "beams.none": ["还没有写完的。", "No text has ended yet."],
  "beams.column.text": ["输出", "text"],
  "beams.column.sum": ["log p 之和", "sum of log p"],
  "beams.column.length": ["长度", "length"],
  "beams.column.score": ["总分", "score"],

  // Heads
  "heads.title": ["所有层的所有头", "All heads of all layers"],
  "heads.enc": ["编码器自注意力", "Encoder self-attention"],
  "heads.self": ["解码器自注意力", "Decoder self-attention"],
  "heads.cross": ["交叉注意力", "Cross-attention"],
  "heads.note": [
    "行是谁在看，列是看谁。点一个头，打开它的每个数。",
    "Rows look, columns are looked at. Click a head to open its numbers.",
  ],

  // Switches
  "switch.title": ["如果没有……", "What if …"],
  "switch.note": [
    "关掉一个部件，模型立刻重新计算，参数不变。它不是这样训练的，所以会写错：错在哪里，说明那个部件管什么。",
    "Switch a part off and the model computes again, with the same weights. It was not trained like this, so it errs, and how it errs tells what the part is for.",
  ],
  "switch.none": ["这个模型没有可以关掉的部件。", "This model has no parts to switch off."],
  "switch.causal": ["因果掩码", "Causal mask"],
  "switch.causal.note": ["不看后面的词元", "later tokens are hidden"],
  "switch.scaling": ["缩放", "Scaling"],
  "switch.scaling.note": ["分数除以 √d", "scores are divided by √d"],
  "switch.positions": ["位置编码", "Positions"],
  "switch.positions.note": ["词元知道自己在第几位", "tokens know their place"],
  "switch.cross": ["交叉注意力", "Cross-attention"],
  "switch.cross.note": ["解码器看得到输入", "the decoder sees the source"],
  "switch.heads": ["已关闭的头：", "Heads switched off: "],
  "switch.head-on": ["重新使用{name}", "Use {name} again"],
  "switch.all-on": ["全部恢复", "Switch all on"],
  "output.target": ["输出", "Output"],
  "output.unknown": [
    "这个模型不认识其中一些字符（<unk>），写出的东西没有意义。字母模型只认识英文字母。",
    "The model does not know some of these characters (<unk>), and what it writes means nothing. Models of letters know English letters alone.",
  ],
  "output.before": ["原来的输出", "Output before"],
  "output.now": ["现在的输出", "Output now"],

  // The end
  "end.lead": [
    "一共写了 {count} 个词元，一次一个，每次都重新看输入。",
    "{count} tokens were written, one at a time, each with a new look at the source.",
  ],
  "end.lead.plain": ["一共写了 {count} 个词元，一次一个。", "{count} tokens were written, one at a time."],
  "end.lead.off": [
    "一共写了 {count} 个词元，一次一个。交叉注意力已关闭，一次也没有看输入。",
    "{count} tokens were written, one at a time. Cross-attention is off: none of them had a look at the source.",
  ],
  "end.ended": ["写出 </s> 就结束了。", "Writing </s> ends the text."],
  "end.cut": [
    "写到长度上限还没有 </s>，所以在这里停下。",
    "It had not written </s> when it reached the longest length, so it was stopped.",
  ],
  "end.empty": ["（什么也没写）", "(nothing)"],
  "end.sure": ["每个词元的把握", "How sure it was of each token"],
  "end.word": ["“{token}”，概率 {share}：到那一步去", "“{token}”, probability {share}: go to its step"],
  "end.chance": [
    "整个输出的概率是这些数的乘积：{chance}。",
    "The probability of the whole text is their product: {chance}.",
  ],
  "end.own": [
    "这些是模型本身的概率，不算温度和 top-p。",
    "These are the model's own probabilities, before temperature and top-p.",
  ],
  "end.alignment.one": ["哪个词元看哪里：注意力", "Which token looked where: attention"],
  "end.alignment.note.one": [
    "行是写出的词元，列是输入的词元。",
    "Rows are written tokens, columns tokens of the input.",
  ],
  "end.alignment": [
    "哪个词元看哪里：最后一层交叉注意力",
    "Which token looked where: cross-attention of the last layer",
  ],
  "end.alignment.note": [
    "行是写出的词元，列是输入的词元，各头平均。",
    "Rows are written tokens, columns source tokens, the mean of all heads.",
  ],

  // The comparison
  "compare.title": ["瓶颈：同一个词，不同的模型", "The bottleneck: one word, several models"],
  "compare.lead": [
    "循环网络把整个词压成一个固定长度的向量，词越长，忘得越多；有了注意力，解码器可以回头看每个字母。从短词试到长词。训练时很少见到的长词，Transformer 也会写乱。",
    "An RNN presses the whole word into one vector of fixed length: the longer the word, the more it forgets. With attention the decoder can look back at each letter. Try short words, then long ones. At lengths that are rare in training the Transformer errs, too.",
  ],
  "compare.try": ["试试", "Try"],
  "compare.waits": ["正在载入……", "Loading …"],
  "compare.rnn-fixed": ["循环网络，固定上下文", "RNN, fixed context"],
  "compare.rnn-additive": ["循环网络，加性注意力", "RNN, additive attention"],
  "compare.transformer": ["Transformer", "Transformer"],
  "compare.rnn-fixed.note": ["没有注意力，只有一个向量。", "No attention: one vector is all there is."],
  "compare.rnn-additive.note": ["写每个音素时看哪些字母。", "Which letters it looks at for each phoneme."],
  "compare.transformer.note": ["最后一层交叉注意力，各头平均。", "Cross-attention of the last layer, mean of heads."],
  "compare.count": ["{letters} 个字母 → {phonemes} 个音素", "{letters} letters → {phonemes} phonemes"],
  "compare.vector": ["一个向量", "one vector"],
  "compare.bottleneck": [
    "所有字母进入一个向量，所有音素从它出来",
    "All letters go into one vector, all phonemes come out of it",
  ],

  // The tour
  "tour.start": ["导览", "Tour"],
  "tour.next": ["下一步", "Next"],
  "tour.back": ["上一步", "Back"],
  "tour.end": ["结束", "Close"],
  "tour.count": ["{number} / {count}", "{number} / {count}"],
  "tour.label": ["导览，第 {number} 步，共 {count} 步", "Tour, step {number} of {count}"],
  "tour.keys": ["← → 换步，Esc 结束", "← → to move, Esc to close"],
  "tour.ask": [
    "这里有一个真的翻译模型：970 万个参数，5 层编码器，3 层解码器。我们看它把“今天吃什么好”翻译成英文。它很小，也会译错，这没有关系：怎么算，一步都不会少。",
    "This is a real translation model: 9.7 million parameters, 5 encoder and 3 decoder layers. We watch it translate 今天吃什么好 (“what would be good to eat today?”). It is small and errs at times; that does not matter, for not a step is left out.",
  ],
  "tour.timeline": [
    "整个过程从左到右：切词，变成向量，编码器一层一层地读，解码器一个词元一个词元地写。点任何一步都可以，← → 也可以。",
    "The whole way from left to right: cut, turn into vectors, let the encoder read layer by layer, let the decoder write token by token. Click any step, or use ← →.",
  ],
  "tour.words": [
    "文字先整理，再分段。中文没有空格，就按字的种类来分：汉字、标点、数字各成一段。",
    "The text is made regular, then cut at borders. Chinese has no spaces, so it is cut where the kind of sign changes: characters, punctuation, digits.",
  ],
  "tour.pieces": [
    "每段再切成词表里有的词元。下面的数字是编号，模型看到的只有这些数字。最后加上 </s>，表示句子结束。",
    "Each part is cut into tokens of the vocabulary. The number below is all that the model sees. </s> at the end says that the text is over.",
  ],
  "tour.joins": [
    "怎么切的？其实是合并：先拆成单字，再照学到的规则两两合成一块，直到没有规则可用。剩下的就是词元。",
    "How is it cut? By joining: from single characters two neighbours at a time become one, as the learned rules say. What is left when no rule applies are the tokens.",
  ],
  "tour.embedding": [
    "编号换成向量。一行是一个词元，一格是一个数：蓝色小于 0，橙色大于 0。指着或点一格看数值。",
    "Numbers become vectors. A row is a token, a cell one number: blue is below 0, orange above. Point at a cell to read it.",
  ],
  "tour.position": [
    "“狗咬人”和“人咬狗”词元一样，顺序不同。位置编码就是加进去的“第几个”。",
    "“Dog bites man” and “man bites dog” have the same tokens. Positions add which comes first.",
  ],
  "tour.plan": [
    "编码器的一层。从上到下：自注意力，前馈网络，每个后面都有残差连接和层归一化。点一个框，右边就打开它。",
    "A layer of the encoder, top to bottom: self-attention, feed-forward network, each with a residual connection and a norm. Click a box to open it.",
  ],
  "tour.arcs": [
    "自注意力：每个词元看全句的每个词元，看多看少就是权重。线越粗，看得越多。",
    "Self-attention: each token looks at all tokens, at some more than at others. The thicker the line, the larger the weight.",
  ],
  "tour.thumbs": [
    "一层有 4 个头，各看各的：四张图没有两张相同。点一张就打开这个头。",
    "A layer has 4 heads, and each looks in its own way: no two pictures are alike. Click one to open its head.",
  ],
  "tour.scores": [
    "打开一个头。q 和每个 k 相乘得到分数，除以 √64 = 8，softmax 变成权重。表里都是模型真正算出的数。",
    "A head, opened. q times each k is a score; divided by √64 = 8 and put through softmax it is a weight. These are the numbers that the model computes.",
  ],
  "tour.sum": [
    "最后按权重把 v 加起来：这就是注意力给出的结果。整个注意力就是这几步，没有别的。",
    "In the end the v are added up by weight: that is what attention gives. There is no more to it.",
  ],
  "tour.norm": [
    "结果加回输入（残差连接），再归一化。点一个格子，下面写出每一步的数。",
    "The result is added to what went in (the residual connection) and normalized. Click a cell: the numbers are written out.",
  ],
  "tour.ffn": [
    "前馈网络：每个词元自己算，先放大到 1024 维，负数变成 0，再缩回来。一大半单元是 0。",
    "The feed-forward network: each token by itself, up to 1,024 numbers, negative ones become 0, and back. Most units are 0.",
  ],
  "tour.stack": [
    "同样的层重复 5 次，参数各不相同。越往后，向量里全句的信息越多。最后一层的输出交给解码器。",
    "The same layer five times, each with weights of its own. What comes out of the last one is given to the decoder.",
  ],
  "tour.read": [
    "现在轮到解码器。它从 <s> 开始，每写一个词元，就把它接在后面再读一遍。",
    "Now the decoder. It begins with <s>; each token that it writes is read again with the next one.",
  ],
  "tour.mask": [
    "解码器里也有自注意力，但有因果掩码：斜线格是看不到的。训练时整句一起算，没有掩码就会偷看答案。",
    "The decoder has self-attention too, with a causal mask: hatched cells cannot be seen. Training computes the whole text at once; without the mask the model would see the answer.",
  ],
  "tour.cross": [
    "交叉注意力：解码器在这里读源句。写英文词时看的是哪个中文词？",
    "Cross-attention: here the decoder reads the source. Which Chinese word does it look at for the English one?",
  ],
  "tour.next-token": [
    "最后，词表里每个词元都有一个概率。点第二个试试：模型会顺着它写下去。",
    "In the end each token of the vocabulary has a probability. Click the second one: the model goes on from there.",
  ],
  "tour.beams": [
    "贪心搜索不回头，可能错过更好的句子。束搜索同时走几条路，这里是它的树：剪掉的是虚线，最好的是橙色。",
    "Greedy search never looks back and may miss a better text. Beam search walks several ways at a time; this is its tree: dashed was pruned, orange is best.",
  ],
  "tour.sampling": [
    "也可以抽样。温度越高越大胆。拖动滑块，看输出怎么变。",
    "Or tokens are drawn by chance; the higher the temperature, the bolder. Move a slider and see the output change.",
  ],
  "tour.switches": [
    "这里关掉了位置编码：模型不知道词序了。上面并排写着原来的和现在的输出。",
    "Positions are switched off here: the model no longer knows the order of words. Its output before and now are side by side above.",
  ],
  "tour.all-heads": [
    "所有的头都在这里，一行一层。点开任何一个，都能看到底。",
    "All heads are here, a row for each layer. Any of them can be opened, down to its numbers.",
  ],
  "tour.done": [
    "轮到你了：换一句话，换一个模型。地址栏里记着每一步，复制链接就能分享。",
    "Your turn: try another text, or another model. The address holds each step; copy it to share what you see.",
  ],
};

/**
 * The text of a key.
 * @param {string} language "zh" or "en"
 * @param {string} key
 * @param {Object<string, any>} [values] What {name} stands for.
 * @returns {string} A model without a text of its own has its name.
 */
export function translate(language, key, values = {}) {
  const pair = TEXTS[key];
  if (!pair) return key.startsWith("model.") ? String(values.name) : key;
  const text = pair[language === "zh" ? 0 : 1];
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** All keys, for the tests. */
export const KEYS = Object.keys(TEXTS);
