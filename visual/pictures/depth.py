"""Metres by colour."""

import math

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from tasks.base import Target
from tasks.depth import DepthTask, metres
from visual.drawing import BLACK, fitted, font, greyed, text_size, with_strip
from visual.pictures.base import DrawOptions, Picture


class DepthPicture(Picture):
    task: DepthTask
    strip_lines = 2

    def draw(
        self, image: np.ndarray, prediction: Tensor | None, target: Target | None, options: DrawOptions
    ) -> np.ndarray:
        """Metres by colour, logarithmic over the range that is evaluated, for truth and prediction alike; with scale.

        Predictions fill the picture; measurements are dots on the image in grey.
        """
        if prediction is not None:
            picture = self._colours(fitted(prediction[0].float().cpu().numpy(), image))
        else:
            assert target is not None  # one of them is given
            picture = self._dots(image, metres(target["depth"][0].cpu(), torch.float32).numpy())
        canvas, pen = with_strip(picture, self.strip_lines)
        self._scale_bar(canvas, pen, picture.shape[0])
        return np.array(canvas)

    def caption(self, target: Target) -> str:
        depth = metres(target["depth"], torch.float64)
        measured = depth[depth > 0]
        if not len(measured):
            return "nothing measured"
        share = len(measured) / depth.numel()
        return f"{measured.min():.1f} to {measured.max():.1f} m on {share:.0%} of the pixels"

    def _colours(self, depth: np.ndarray) -> np.ndarray:
        """Metres, any shape H x W -> RGB. Near is bright."""
        place = np.log(np.clip(depth, self.task.nearest, self.task.cap) / self.task.nearest)
        grey = 255 - np.rint(255 * place / np.log(self.task.cap / self.task.nearest)).astype(np.uint8)
        return cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)[..., ::-1]

    def _dots(self, image: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """A dot at the pixel of every measurement, near ones over far ones."""
        rows, columns = np.nonzero(depth)
        far_first = np.argsort(-depth[rows, columns], kind="stable")
        rows, columns = rows[far_first], columns[far_first]
        colours = self._colours(depth[rows, columns][None])[0].tolist()
        scale = np.array(image.shape[:2]) / depth.shape
        picture, radius = greyed(image, 120, 230), max(1, image.shape[1] // 400)
        for y, x, colour in zip((rows + 0.5) * scale[0], (columns + 0.5) * scale[1], colours, strict=True):
            cv2.circle(picture, (int(x), int(y)), radius, colour, cv2.FILLED)
        return picture

    def _scale_bar(self, canvas: Image.Image, pen: ImageDraw.ImageDraw, top: int) -> None:
        """The colours from the nearest to the cap and numbers below them."""
        width, size, cap = canvas.width, text_size(canvas.width), self.task.cap
        left, length = width // 10, width * 8 // 10
        bar = np.geomspace(self.task.nearest, cap, length, dtype=np.float32)[None].repeat(size, 0)
        canvas.paste(Image.fromarray(self._colours(bar)), (left, top + size // 2))
        for mark in [mark for mark in (0.2, 0.5, 1, 2, 5, 10, 20, 40) if self.task.nearest <= mark <= 0.6 * cap] + [
            cap
        ]:
            x = left + length * math.log(mark / self.task.nearest) / math.log(cap / self.task.nearest)
            pen.text((x, top + 1.7 * size), f"{mark:g} m", fill=BLACK, font=font(size), anchor="mt")
