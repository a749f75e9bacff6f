#pragma once
// Memory for arrays that are about to be filled whole.

#include <cstddef>
#include <memory>
#include <span>

namespace stepstone {

// Whether memory that is about to be filled should be asked for in huge pages. Not in a virtual
// machine whose hypervisor takes back what is free: it takes whole huge pages, and gives each back
// in small pieces at the first touch, while small pages come from what it has left
// (engine/README.md has figures).
bool huge_pages_pay();

inline constexpr std::size_t kHugePageSizeBytes = std::size_t{2} << 20;

// From this size on an array is worth whole cache lines.
inline constexpr std::size_t kAlignedSizeBytesMin = 4096;

// `size_bytes` of uninitialized memory, aligned for every dtype, and from kAlignedSizeBytesMin on
// to cache lines. Large amounts are asked of the kernel in huge pages where that pays, since
// handing out small ones takes as long as filling them. Throws std::bad_alloc.
std::shared_ptr<std::byte[]> allocate_huge(std::size_t size_bytes);

// A multiple of kHugePageSizeBytes of memory, aligned to it, for blocks that are written past the
// page cache, one after the other: in huge pages always, since the device is then handed a few long
// pieces in the place of one for each small page. Throws std::bad_alloc.
std::shared_ptr<std::byte[]> allocate_direct_io(std::size_t size_bytes);

// Has the kernel hand out the pages behind memory that is about to be written, in one call, which
// takes it less than the first touch of each (engine/README.md has figures), and hardly any time
// where they are there already. The bytes stay what they are. Gives 0, or the errno of the reason
// for which some pages still wait for their first touch: ENOMEM or EFAULT, which that will meet,
// too; EINVAL, when the kernel cannot do this, or not with such memory, or may not write to it.
int populate(std::span<std::byte> memory);

// The same of what a read is about to fill, if it is large enough to be worth a call. Whatever
// prevents it, the read will say so if it matters.
void prepare_to_fill(std::span<std::byte> memory);

}  // namespace stepstone
