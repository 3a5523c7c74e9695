"""SDXL's networks: a UNet, and the ControlNets beside it."""

from shared.models.families.sdxl.inputs import TextTime
from shared.models.families.unet.controlnet import UnetControlNet
from shared.models.families.unet.unet import Unet


class SdxlUnet(Unet):
    inputs = TextTime()


class SdxlControlNet(UnetControlNet):
    inputs = TextTime()
