#pragma once
// Memory for arrays that are about to be filled whole.

#include <cstddef>
#include <memory>

namespace stepstone {

// `size_bytes` of uninitialized memory, aligned for every dtype. Large amounts are asked of the
// kernel in huge pages, since handing out small ones takes as long as filling them. Throws
// std::bad_alloc.
std::shared_ptr<std::byte[]> allocate_huge(std::size_t size_bytes);

}  // namespace stepstone
