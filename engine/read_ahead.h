#pragma once
// Reads on a few threads, ahead of the one that uses what was read, in order.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "format/error.h"

namespace stepstone {

class ReadAhead {
 public:
  // Fills `scratch`, or gives a view of memory that outlives the piece.
  using Read = std::function<Result<std::span<const std::byte>>(std::span<std::byte> scratch)>;

  // A piece being read. Its bytes last as long as it does, and it goes before the ReadAhead.
  class Piece {
   public:
    std::size_t size_bytes() const { return size_bytes_; }

   private:
    friend class ReadAhead;
    enum class State : std::uint8_t { kWaiting, kBegun, kDone };

    Read read_;
    std::size_t size_bytes_ = 0;
    State state_ = State::kWaiting;
    std::vector<std::byte> memory_;
    Result<std::span<const std::byte>> result_;
  };

  explicit ReadAhead(unsigned thread_count);
  // What was not begun is not read any more.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Begins in the order of the calls. Throws std::bad_alloc.
  std::shared_ptr<Piece> begin(std::size_t size_bytes, Read read);
  // Its bytes. Reads a piece that no thread has begun by itself.
  Result<std::span<const std::byte>> wait(const std::shared_ptr<Piece>& piece);

 private:
  void work();
  void run(Piece& piece);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Piece>> waiting_;
  std::vector<std::vector<std::byte>> free_;  // Memory of pieces that are gone.
  bool is_stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace stepstone
