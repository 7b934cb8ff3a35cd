"""From the tensors of a weight file to the network of its family."""

from higan.generators.conversion.convert import convert

__all__ = ["convert"]
