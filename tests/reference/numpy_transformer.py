"""The Transformer of "Attention Is All You Need" (Vaswani et al., 2017) in NumPy, as an oracle for our model.

It is written from the paper and for the eye, not for speed: one sentence at a time, so that there is no padding and
no batch; one head at a time, so that no axis is ever reshaped; float64, so that its rounding does not matter. It
shares no code with the package, and reads only a dict of arrays under the package's parameter names:

    oracle = NumpyTransformer({name: tensor.numpy() for name, tensor in model.state_dict().items()}, config.to_dict())
    logits = oracle.logits(source_ids, decoder_input_ids)

In shapes, `tokens` is the length of one sentence; source_len and target_len where both occur.
"""

import math
from functools import partial

import numpy as np


def positional_encoding(position, d_model):
    """Section 3.5: PE(pos, 2i) = sin(pos / 10000^(2i / d_model)), PE(pos, 2i + 1) = cos of the same angle.

    Args:
        position: 0 for the first token of a sentence.
        d_model: an even number.

    Returns:
        The encoding of one position, (d_model,).
    """
    encoding = np.zeros(d_model)
    for i in range(d_model // 2):
        angle = position / 10000 ** (2 * i / d_model)
        encoding[2 * i] = math.sin(angle)
        encoding[2 * i + 1] = math.cos(angle)
    return encoding


def rotate(vectors):
    """Su et al. (2021), section 3.4.2: pair i of the vector at position p is turned by the angle p / 10000^(2i / d).

    The numbers of a pair are a half of the vector apart, as in most programs; in the paper they are neighbours.

    Args:
        vectors: queries or keys of one head, (tokens, head_dim).

    Returns:
        (tokens, head_dim).
    """
    half = vectors.shape[-1] // 2
    turned = np.empty_like(vectors)
    for position, i in np.ndindex(len(vectors), half):
        angle = position / 10000 ** (2 * i / (2 * half))
        number = complex(vectors[position, i], vectors[position, i + half]) * np.exp(1j * angle)
        turned[position, i], turned[position, i + half] = number.real, number.imag
    return turned


def distance_bucket(distance, causal, buckets=32, farthest=128):
    """Raffel et al. (2020), section 2.1: the range of distances, of a key from its query, that share a number.

    Without `causal`, half of the buckets are for keys on the right. Half of those for one side hold one distance; the
    others are ranges that grow like powers up to `farthest`, and the last holds all that is farther.
    """
    if not causal:
        buckets //= 2
        first = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        first, distance = 0, max(0, -distance)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    share = math.log(distance / exact) / math.log(farthest / exact)
    return first + min(buckets - 1, exact + int(share * (buckets - exact)))


def softmax(scores):
    """exp(e_j) / sum_k exp(e_k) over the last axis; the largest score is subtracted so that exp cannot overflow."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def scaled_dot_product_attention(query, key, value, causal=False, window=None, bias=None):
    """Section 3.2.1, equation 1: softmax(Q K^T / sqrt(d_k)) V.

    Args:
        query: (query_len, head_dim).
        key: (key_len, head_dim).
        value: (key_len, head_dim).
        causal: Section 3.2.3: a position may look at itself and to its left; all other scores become -inf.
        window: A causal position looks at this many, itself included; any other at this many on each side.
        bias: added to the scores, (query_len, key_len).

    Returns:
        The context (query_len, head_dim) and the attention weights (query_len, key_len).
    """
    scores = query @ key.T / math.sqrt(key.shape[-1])
    if bias is not None:
        scores += bias
    if causal:
        for i in range(len(query)):
            scores[i, i + 1 :] = -np.inf
    if window is not None:
        reach = window - 1 if causal else window
        for i, j in np.ndindex(scores.shape):
            if abs(i - j) > reach:
                scores[i, j] = -np.inf
    weights = softmax(scores)
    return weights @ value, weights


def linear_attention(query, key, value, causal=False):
    """Katharopoulos et al. (2020), equation 4: the weights are phi(q_i) . phi(k_j), and sum to 1; phi(x) = elu(x) + 1.

    Args:
        query, key, value: (tokens, head_dim).
        causal: A position looks at itself and to its left (equation 8).

    Returns:
        The context (tokens, head_dim) and the weights (tokens, tokens).
    """

    def phi(x):
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))

    weights = np.zeros((len(query), len(key)))
    for i in range(len(query)):
        for j in range(i + 1 if causal else len(key)):
            weights[i, j] = phi(query[i]) @ phi(key[j])
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ value, weights


def gated_convolution(inputs, weight, bias, causal=False):
    """Gehring et al. (2017), section 3.2: A * sigmoid(B), with [A; B] = W [x_i+first; ...; x_i+first+k-1] + b.

    Args:
        inputs: (tokens, d_model); zeros are on both sides.
        weight: W, (2 * d_model, d_model, k).
        bias: b, (2 * d_model,).
        causal: The window ends at the token; else it is around it.

    Returns:
        (tokens, d_model).
    """
    tokens, d_model = inputs.shape
    k = weight.shape[-1]
    first = 1 - k if causal else -(k // 2)
    outputs = []
    for i in range(tokens):
        doubled = bias.copy()
        for offset in range(k):
            if 0 <= i + first + offset < tokens:
                doubled += weight[:, :, offset] @ inputs[i + first + offset]
        outputs.append(doubled[:d_model] / (1 + np.exp(-doubled[d_model:])))
    return np.stack(outputs)


def layer_norm(hidden_states, weight, bias, epsilon=1e-5):
    """Ba et al. (2016), equations 3 and 4: every token has mean 0 and variance 1 before the learned gain and bias."""
    mean = hidden_states.mean(axis=-1, keepdims=True)
    variance = ((hidden_states - mean) ** 2).mean(axis=-1, keepdims=True)
    return (hidden_states - mean) / np.sqrt(variance + epsilon) * weight + bias


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def label_smoothed_loss(logits, labels, label_smoothing):
    """Section 5.4: the cross-entropy against (1 - epsilon) on the label plus epsilon spread evenly over all words.

    Args:
        logits: (target_len, vocab_size).
        labels: (target_len,) ids, none of them padding.
        label_smoothing: epsilon; 0.1 in the paper.

    Returns:
        The loss of each token, (target_len,).
    """
    vocab_size = logits.shape[-1]
    losses = []
    for token_logits, label in zip(logits, labels):
        log_probabilities = np.log(softmax(token_logits))
        wanted = np.full(vocab_size, label_smoothing / vocab_size)
        wanted[label] += 1 - label_smoothing
        losses.append(-(wanted * log_probabilities).sum())
    return np.array(losses)


class NumpyTransformer:
    """Section 3: encoder, decoder and generator, without dropout; and what may take the place of self-attention.

    Args:
        parameters: name -> array, under the names of FunTransformerForConditionalGeneration.
        config: FunTransformerConfig as a dict.
    """

    def __init__(self, parameters, config):
        self.parameters = {name: np.asarray(array, dtype=np.float64) for name, array in parameters.items()}
        self.config = config

    def linear(self, name, inputs):
        """x W + b. Our weights are stored (out_features, in_features), the transpose of the paper's W."""
        outputs = inputs @ self.parameters[name + ".weight"].T
        return outputs + self.parameters[name + ".bias"] if name + ".bias" in self.parameters else outputs

    def norm(self, name, hidden_states):
        weight, bias = self.parameters[name + ".weight"], self.parameters[name + ".bias"]
        return layer_norm(hidden_states, weight, bias, self.config.get("layer_norm_eps", 1e-5))

    def mix(self, stack, i, hidden_states, heads):
        """What a layer does in the place of self-attention, (tokens, d_model) -> (tokens, d_model)."""
        name, causal = f"model.{stack}.layers.{i}.self_attn", stack == "decoder"
        layer_type = (self.config.get(f"{stack}_layer_types") or {i: "full_attention"})[i]
        if layer_type == "conv":
            weight, bias = (self.parameters[f"{name}.conv.{part}"] for part in ("weight", "bias"))
            return gated_convolution(hidden_states, weight, bias, causal)
        attention = linear_attention if layer_type == "linear_attention" else scaled_dot_product_attention
        if layer_type == "sliding_attention":
            attention = partial(attention, window=self.config["sliding_window"])
        attentions = [self.with_positions(attention, stack, head) for head in range(heads)]
        return self.multi_head_attention(name, hidden_states, hidden_states, heads, causal, attentions)[0]

    def with_positions(self, attention, stack, head):
        """Self-attention of one head, with the positions that are not added to the embeddings."""
        if self.config["position_embedding_type"] == "rotary":
            return lambda query, key, value, causal: attention(rotate(query), rotate(key), value, causal)
        if self.config["position_embedding_type"] != "relative":
            return attention
        numbers = self.parameters[f"model.{stack}.embed_positions.distance_bias.weight"]  # (buckets, heads)

        def with_bias(query, key, value, causal):
            bias = np.zeros((len(query), len(key)))
            for i, j in np.ndindex(bias.shape):
                bias[i, j] = numbers[distance_bucket(j - i, causal), head]
            return attention(query, key, value, causal, bias=bias)

        return with_bias

    def multi_head_attention(self, name, queries, keys_and_values, heads, causal=False, attentions=None):
        """Section 3.2.2: Concat(head_1, ..., head_h) W^O, where head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V).

        Args:
            name: of the attention's parameters; W_i^Q are the i-th head_dim columns of W^Q, and so on.
            queries: (query_len, d_model).
            keys_and_values: (key_len, d_model); the same as the queries in self-attention.
            attentions: what each head computes; scaled dot-product attention when None.

        Returns:
            The output (query_len, d_model) and the attention weights (heads, query_len, key_len).
        """
        query = self.linear(name + ".q_proj", queries)  # (query_len, d_model)
        key = self.linear(name + ".k_proj", keys_and_values)  # (key_len, d_model)
        value = self.linear(name + ".v_proj", keys_and_values)  # (key_len, d_model)
        head_dim = self.config["d_model"] // heads
        contexts, weights = [], []
        for i, attention in enumerate(attentions or [scaled_dot_product_attention] * heads):
            head = slice(i * head_dim, (i + 1) * head_dim)
            head_context, head_weights = attention(query[:, head], key[:, head], value[:, head], causal)
            contexts.append(head_context)
            weights.append(head_weights)
        return self.linear(name + ".out_proj", np.concatenate(contexts, axis=-1)), np.stack(weights)

    def feed_forward(self, name, hidden_states):
        """Section 3.3, equation 2: max(0, x W_1 + b_1) W_2 + b_2, for each position alone."""
        activation = ACTIVATIONS[self.config["activation_function"]]
        return self.linear(name + ".fc2", activation(self.linear(name + ".fc1", hidden_states)))

    def residual(self, norm_name, hidden_states, sublayer):
        """Section 3.1: LayerNorm(x + Sublayer(x)); with norm_position="pre", x + Sublayer(LayerNorm(x))."""
        if self.config["norm_position"] == "post":
            return self.norm(norm_name, hidden_states + sublayer(hidden_states))
        return hidden_states + sublayer(self.norm(norm_name, hidden_states))

    def embed(self, stack, ids):
        """Sections 3.4 and 3.5: embeddings times sqrt(d_model), plus the encodings of positions 0, 1, 2, ..."""
        d_model = self.config["d_model"]
        scale = math.sqrt(d_model) if self.config["scale_embedding"] else 1
        rows = []
        for position, token in enumerate(ids):
            encoding = 0  # rotary and relative positions are told to attention
            if self.config["position_embedding_type"] == "sinusoidal":
                encoding = positional_encoding(position, d_model)
            elif self.config["position_embedding_type"] == "learned":
                encoding = self.parameters[f"model.{stack}.embed_positions.weight"][position]
            rows.append(self.parameters[f"model.{stack}.embed_tokens.weight"][token] * scale + encoding)
        return np.stack(rows)  # (tokens, d_model)

    def encode(self, source_ids):
        """Section 3.1, Encoder: self-attention, then feed-forward, N times.

        Args:
            source_ids: (source_len,).

        Returns:
            The encoder's hidden states, (source_len, d_model).
        """
        heads = self.config["encoder_attention_heads"]
        hidden_states = self.embed("encoder", source_ids)
        for i in range(self.config["encoder_layers"]):
            layer = f"model.encoder.layers.{i}"
            hidden_states = self.residual(
                f"{layer}.self_attn_layer_norm",
                hidden_states,
                lambda x, i=i: self.mix("encoder", i, x, heads),
            )
            hidden_states = self.residual(
                f"{layer}.final_layer_norm",
                hidden_states,
                lambda x, layer=layer: self.feed_forward(f"{layer}.feed_forward", x),
            )
        return self.norm("model.encoder.layer_norm", hidden_states) if self.has_final_norm else hidden_states

    def decode(self, decoder_input_ids, encoder_hidden_states):
        """Section 3.1, Decoder: causal self-attention, attention over the encoder's output, feed-forward, N times.

        Args:
            decoder_input_ids: (target_len,).
            encoder_hidden_states: (source_len, d_model).

        Returns:
            The decoder's hidden states (target_len, d_model), and the cross-attention weights of each layer, as a
            list of (heads, target_len, source_len).
        """
        heads = self.config["decoder_attention_heads"]
        cross_attentions = []

        def cross_attention(layer, hidden_states):
            output, weights = self.multi_head_attention(
                f"{layer}.encoder_attn", hidden_states, encoder_hidden_states, heads
            )
            cross_attentions.append(weights)
            return output

        hidden_states = self.embed("decoder", decoder_input_ids)
        for i in range(self.config["decoder_layers"]):
            layer = f"model.decoder.layers.{i}"
            hidden_states = self.residual(
                f"{layer}.self_attn_layer_norm",
                hidden_states,
                lambda x, i=i: self.mix("decoder", i, x, heads),
            )
            hidden_states = self.residual(
                f"{layer}.encoder_attn_layer_norm", hidden_states, lambda x, layer=layer: cross_attention(layer, x)
            )
            hidden_states = self.residual(
                f"{layer}.final_layer_norm",
                hidden_states,
                lambda x, layer=layer: self.feed_forward(f"{layer}.feed_forward", x),
            )
        if self.has_final_norm:
            hidden_states = self.norm("model.decoder.layer_norm", hidden_states)
        return hidden_states, cross_attentions

    @property
    def has_final_norm(self):
        wanted = self.config.get("final_layer_norm")
        return self.is_pre_norm if wanted is None else wanted

    @property
    def is_pre_norm(self):
        return self.config["norm_position"] == "pre"

    def logits(self, source_ids, decoder_input_ids):
        """Section 3.4: the decoder's hidden states through the output projection, (target_len, vocab_size)."""
        hidden_states, _ = self.decode(decoder_input_ids, self.encode(source_ids))
        return self.linear("lm_head", hidden_states)

    def loss(self, pairs, label_smoothing=None):
        """Section 5.4: the mean over the target tokens of several pairs; the decoder reads `<s>` + labels[:-1].

        Args:
            pairs: list of (source_ids, labels).
            label_smoothing: in place of the config's.
        """
        epsilon = self.config["label_smoothing"] if label_smoothing is None else label_smoothing
        losses = []
        for source_ids, labels in pairs:
            decoder_input_ids = [self.config["decoder_start_token_id"], *labels[:-1]]
            losses.append(label_smoothed_loss(self.logits(source_ids, decoder_input_ids), labels, epsilon))
        return np.concatenate(losses).mean()

    def greedy(self, source_ids, max_new_tokens):
        """The likeliest next token, again and again, until `</s>`; without any cache.

        Returns:
            The list of ids that follow `<s>`.
        """
        decoder_input_ids = [self.config["decoder_start_token_id"]]
        while len(decoder_input_ids) <= max_new_tokens and decoder_input_ids[-1] != self.config["eos_token_id"]:
            decoder_input_ids.append(int(self.logits(source_ids, decoder_input_ids)[-1].argmax()))
        return decoder_input_ids[1:]
