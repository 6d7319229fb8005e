"""The pipeline "image-to-text", which transformers 5 removed: a picture in, a text out.

It works for every model that generates from pixels (ours, TrOCR, Donut, BLIP) and answers as it did in transformers 4.
"image-text-to-text", which took its place, wants a prompt.

    >>> import fun_transformer
    >>> from transformers import pipeline
    >>> pipeline("image-to-text", model="microsoft/trocr-base-handwritten")("line.png")
    [{'generated_text': 'industrie, Mr. Brown commented icily.'}]
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save
from transformers.image_utils import load_image

from .pipeline_options import check_counts, ruling_params, without_none

LONGEST = 256  # tokens of a text, where neither the call nor the model says so


def as_line(picture: Any) -> Any:
    """Return a picture (of Pillow) as our models read one: upright, in three colours, at least as wide as tall.

    16 bits a colour become 8, and what is transparent white, where Pillow's own conversion would give a picture of one
    colour. A narrow one gets a margin on its right, in the colour of its corner.
    """
    from PIL import Image, ImageOps  # which a model of texts does not need

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    if picture.width >= picture.height:
        return picture
    wide = Image.new("RGB", (picture.height, picture.height), picture.getpixel((picture.width - 1, 0)))
    wide.paste(picture)
    return wide


class ImageToTextPipeline(Pipeline):
    """Read pictures: `[{"generated_text": str}]` for a picture, a list of such lists for a list.

    A picture is a path, an address or a PIL image. Pictures of different widths can be in a batch (`batch_size=...`)
    where the model takes a mask, as ours does; other models need an image processor that makes them one size.
    """

    _load_tokenizer: Any = True  # which parts transformers loads
    _load_image_processor: Any = True
    _load_processor: Any = False
    _load_feature_extractor: Any = False
    _load_video_processor: Any = False
    tokenizer: Any
    auto_class, kind = "AutoModelForImageTextToText", "multimodal"

    def __init__(self, model, *args, **kwargs):
        super().__init__(model, *args, **kwargs)
        reads = self.model.main_input_name
        if reads not in ("pixel_values", "flattened_patches") or not self.model.can_generate():
            raise ValueError(
                f"{type(self.model).__name__} does not generate text from pixels alone, which the task "
                f'"{self.task}" needs: its input is {reads}. Choose another task or model.'
            )
        for name in ("tokenizer", "image_processor"):
            if getattr(self, name) is None:
                raise ValueError(f'The task "{self.task}" needs a {name}: pass {name}=...')

    def _sanitize_parameters(self, timeout=None, generate_kwargs=None, **kwargs):
        generate_kwargs = (generate_kwargs or {}) | without_none(kwargs)
        check_counts(generate_kwargs)
        return without_none({"timeout": timeout}), generate_kwargs, {}

    def __call__(self, inputs, **kwargs):
        """Write what is in pictures.

        Args:
            inputs: A picture, a list of pictures, a generator or a dataset.
            kwargs: batch_size, timeout (seconds for a download), and what `generate` takes (`max_new_tokens`, ...),
                also as `generate_kwargs`.

        Returns:
            A list of dictionaries with the key `generated_text`, one for each sequence; for several pictures a list of
            such lists.
        """
        return super().__call__(inputs, **kwargs)

    def preprocess(self, image, timeout=None):
        """Turn a picture into what the model reads; not yet in one tensor with others, whose widths may differ."""
        picture = image
        if not hasattr(self.model.config, "source_modality"):
            picture = load_image(image, timeout=timeout)
        else:  # `load_image` would make three colours of all pictures in its own way
            from PIL import Image

            if isinstance(image, str):
                picture = Image.open(image) if Path(image).is_file() else load_image(image, timeout=timeout)
            picture = as_line(picture)
        return {"features": dict(self.image_processor(images=picture, return_tensors="pt"))}

    def _forward(self, model_inputs, **generate_kwargs):
        """Generate `output_ids` (batch, sequences, target_len)."""
        features = model_inputs["features"]
        pictures = features if isinstance(features, list) else [features]
        params = ruling_params(generate_kwargs, {}, self.model.generation_config)
        if params.get("max_new_tokens") is None and params.get("max_length") is None:
            generate_kwargs = generate_kwargs | {"max_new_tokens": LONGEST}
        output_ids = self.model.generate(**self.join(pictures), **generate_kwargs)
        output_ids = getattr(output_ids, "sequences", output_ids)  # (batch * sequences, target_len)
        return {"output_ids": output_ids.reshape(len(pictures), -1, output_ids.shape[-1])}

    def join(self, pictures: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Put pictures into a batch, padded on the right to the widest; without a mask where all are as wide.

        Args:
            pictures: Features of each, (1, ...).

        Returns:
            Features of all, (batch, ...).

        Raises:
            ValueError: When they have different sizes, and the model takes no mask.
        """
        joined = {}
        for name in pictures[0]:
            tensors = [picture[name] for picture in pictures]
            shapes = [tuple(tensor.shape[1:-1]) for tensor in tensors]
            widths = torch.tensor([tensor.shape[-1] for tensor in tensors], device=tensors[0].device)
            is_padded = bool((widths != widths[0]).any())
            takes_mask = "attention_mask" in inspect.signature(self.model.forward).parameters
            if len(set(shapes)) > 1 or (is_padded and not takes_mask):
                raise ValueError(
                    f"Pictures of a batch need one size, and {name} has {', '.join(map(str, sorted(set(shapes))))} "
                    f"and widths of {int(widths.min())} to {int(widths.max())}. Let the image processor make them "
                    "equal, or use batch_size=1."
                )
            longest = int(widths.max())
            padded = [torch.nn.functional.pad(tensor, (0, longest - tensor.shape[-1])) for tensor in tensors]
            joined[name] = torch.cat(padded)  # (batch, ..., width)
            if is_padded:
                columns = torch.arange(longest, device=widths.device)
                joined["attention_mask"] = (columns < widths[:, None]).long()  # (batch, width)
        dtype = self.model.dtype
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in joined.items()}

    def postprocess(self, model_outputs):
        """Decode the sequences of one picture."""
        texts = self.tokenizer.batch_decode(model_outputs["output_ids"][0], skip_special_tokens=True)
        return [{"generated_text": text} for text in texts]

    def save_pretrained(self, save_directory, **kwargs):
        """Save model, tokenizer and image processor, and this file where the config names it."""
        super().save_pretrained(save_directory, **kwargs)
        if "custom_pipelines" in vars(self.model.config):
            custom_object_save(self, save_directory)


# The class of the task, and the checkpoint (with its revision) that transformers 4 took when none was named.
IMAGE_TASKS = {"image-to-text": (ImageToTextPipeline, ("ydshieh/vit-gpt2-coco-en", "5bebf1e"))}

__all__ = ["IMAGE_TASKS", "ImageToTextPipeline", "as_line"]
