#include "engine/read_ahead.h"

#include <algorithm>
#include <new>
#include <system_error>
#include <utility>

namespace stepstone {
namespace {

// More than this is given back to the system.
constexpr std::size_t kFreeMax = 256;

}  // namespace

ReadAhead::ReadAhead(unsigned thread_count) {
  for (unsigned i = 0; i < thread_count; ++i) {
    try {
      threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      break;  // No more threads to be had: who waits reads.
    }
  }
}

ReadAhead::~ReadAhead() {
  std::deque<std::shared_ptr<Piece>> dropped;
  {
    const std::scoped_lock lock(mutex_);
    is_stopping_ = true;
    dropped.swap(waiting_);
  }
  changed_.notify_all();
  threads_.clear();
}

std::shared_ptr<ReadAhead::Piece> ReadAhead::begin(std::size_t size_bytes, Read read) {
  // Takes the memory back before it goes.
  const auto give_back = [this](Piece* piece) {
    {
      const std::scoped_lock lock(mutex_);
      if (free_.size() < kFreeMax) free_.push_back(std::move(piece->memory_));
    }
    delete piece;
  };
  std::shared_ptr<Piece> piece(new Piece, give_back);
  piece->read_ = std::move(read);
  piece->size_bytes_ = size_bytes;
  {
    const std::scoped_lock lock(mutex_);
    if (!free_.empty()) {
      piece->memory_ = std::move(free_.back());
      free_.pop_back();
    }
    waiting_.push_back(piece);
  }
  changed_.notify_one();
  return piece;
}

Result<std::span<const std::byte>> ReadAhead::wait(const std::shared_ptr<Piece>& piece) {
  std::unique_lock lock(mutex_);
  if (piece->state_ == Piece::State::kWaiting) {
    std::erase(waiting_, piece);
    piece->state_ = Piece::State::kBegun;
    lock.unlock();
    run(*piece);
    return piece->result_;
  }
  changed_.wait(lock, [&] { return piece->state_ == Piece::State::kDone; });
  return piece->result_;
}

void ReadAhead::run(Piece& piece) {
  Result<std::span<const std::byte>> result;
  try {
    if (piece.memory_.size() < piece.size_bytes_) piece.memory_.resize(piece.size_bytes_);
    result = piece.read_(std::span(piece.memory_).first(piece.size_bytes_));
  } catch (const std::bad_alloc&) {
    result = fail(ErrorCode::kLimit, "out of memory");
  }
  {
    const std::scoped_lock lock(mutex_);
    piece.result_ = std::move(result);
    piece.state_ = Piece::State::kDone;
  }
  changed_.notify_all();
}

void ReadAhead::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return is_stopping_ || !waiting_.empty(); });
    if (is_stopping_) return;
    std::shared_ptr<Piece> piece = std::move(waiting_.front());
    waiting_.pop_front();
    piece->state_ = Piece::State::kBegun;
    lock.unlock();
    run(*piece);
    piece.reset();  // Without the lock, which its end takes.
    lock.lock();
  }
}

}  // namespace stepstone
