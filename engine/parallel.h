#pragma once
// Work shared out over a few threads.

#include <cstddef>
#include <functional>

#include "format/error.h"

namespace stepstone {

// 0 becomes the number of processors.
unsigned effective_thread_count(unsigned requested);

// Calls work(i) for each i below `count`, in rising order of start, on up to `thread_count` threads
// of which the caller's is one; a thread takes up to 16 neighbours at a time if there are very
// many. After an error only what a thread has taken is gone through to its end; the error of the
// lowest i that failed is returned. Running out of memory in `work` becomes kLimit.
Result<void> parallel_for(unsigned thread_count, std::size_t count,
                          const std::function<Result<void>(std::size_t index)>& work);

}  // namespace stepstone
