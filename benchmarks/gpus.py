"""What GPUs can do in a clock, from NVIDIA's data sheets and the CUDA programming guide."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GPUS", "Gpu"]

KB = 1024


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: the product.
        multiprocessors: of the GPU.
        clock: in Hz.
        bandwidth: of memory, in bytes a second, that a copy can reach: nine tenths of what the
            data sheet says.
        issues: instructions of a warp that a multiprocessor can issue in a clock.
        fma, alu, xu: lanes that a multiprocessor serves in a clock: of floating-point arithmetic
            and integer products; of other integer operations, comparisons and selections; of
            exponentials, reciprocals and roots.
        shared_bytes, registers, threads, blocks: what a multiprocessor has for all blocks.
    """

    name: str
    multiprocessors: int
    clock: float
    bandwidth: float
    fma: int
    shared_bytes: int
    issues: int = 4
    alu: int = 64
    xu: int = 16
    registers: int = 64 * KB
    threads: int = 2048
    blocks: int = 32

    def blocks_at_once(self, block: int, registers: int, shared_bytes: int) -> int:
        """How many blocks a multiprocessor holds.

        Args:
            block: threads of a block.
            registers: of a thread.
            shared_bytes: of a block, to which the driver adds 1 KB.
        """
        warps = block // 32
        warp_registers = -(-registers * 32 // 256) * 256
        quarter = self.registers // 4 // warp_registers  # each of four schedulers has its own
        return min(
            self.blocks,
            self.threads // block,
            4 * quarter // warps,
            self.shared_bytes // (-(-(shared_bytes + KB) // 128) * 128),
        )


GPUS = {
    "80": Gpu("A100", 108, clock=1.41e9, bandwidth=1.83e12, fma=64, shared_bytes=164 * KB),
    "90": Gpu("H100", 132, clock=1.755e9, bandwidth=3.0e12, fma=128, shared_bytes=228 * KB),
    "100": Gpu("B200", 148, clock=1.98e9, bandwidth=7.2e12, fma=128, shared_bytes=228 * KB),
}
"""By architecture: SXM modules, A100 and H100 with 80 GB. The H100's clock is the one under load,
the B200's what makes 75 TFLOPS of float32 of its multiprocessors."""
