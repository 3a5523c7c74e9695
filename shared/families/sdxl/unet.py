"""SDXL's networks: a UNet, and the ControlNets beside it."""

from shared.families.sdxl.inputs import TextTime
from shared.families.unet.controlnet import UnetControlNet
from shared.families.unet.unet import Unet


class SdxlUnet(Unet):
    inputs = TextTime()


class SdxlControlNet(UnetControlNet):
    inputs = TextTime()
