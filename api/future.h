#pragma once
// The result of something that goes on in the background.

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "../format/error.h"

namespace stepstone {

// Copies share the result; safe from several threads. The last copy waits for the end when it goes,
// so that nothing is left behind half done. A Future without anything behind it (default
// constructed) is done, with kClosed.
template <typename T>
class Future {
 public:
  Future() = default;

  // Runs `work` on a thread of its own, or right here where there is none to be had.
  static Future run(std::function<Result<T>()> work) {
    Future future;
    future.holder_ = std::make_shared<Holder>();
    auto state = future.holder_->state;
    try {
      future.holder_->thread = std::thread([state, work] { state->finish(outcome_of(work)); });
    } catch (const std::system_error&) {
      state->finish(outcome_of(work));
    }
    return future;
  }
  static Future done(Result<T> result) {
    Future future;
    future.holder_ = std::make_shared<Holder>();
    future.holder_->state->finish(std::move(result));
    return future;
  }

  bool is_done() const {
    if (holder_ == nullptr) return true;
    const std::scoped_lock lock(holder_->state->mutex);
    return holder_->state->result.has_value();
  }

  // Waits for the end, for `timeout` at most. May be called again. The work's own error, or kBusy:
  // it is not done yet, and goes on.
  Result<T> result(std::optional<std::chrono::milliseconds> timeout = std::nullopt) const {
    if (holder_ == nullptr) return fail(ErrorCode::kClosed, "nothing was begun");
    State& state = *holder_->state;
    std::unique_lock lock(state.mutex);
    const auto is_there = [&] { return state.result.has_value(); };
    if (!timeout) {
      state.changed.wait(lock, is_there);
    } else if (!state.changed.wait_for(lock, *timeout, is_there)) {
      return fail(ErrorCode::kBusy,
                  "not done after " + std::to_string(timeout->count()) + " ms; it goes on");
    }
    return *state.result;
  }

  // Calls `callback` once with the result: at the end, on the thread of the work, or at once where
  // that has come already. Must not throw.
  void on_complete(std::function<void(const Result<T>& result)> callback) const {
    if (holder_ == nullptr) return callback(result());
    State& state = *holder_->state;
    {
      const std::scoped_lock lock(state.mutex);
      if (!state.result) {
        state.callbacks.push_back(std::move(callback));
        return;
      }
    }
    callback(*state.result);
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Result<T>> result;  // Once set, never changed.
    std::vector<std::function<void(const Result<T>& result)>> callbacks;

    void finish(Result<T> outcome) {
      std::vector<std::function<void(const Result<T>& result)>> waiting;
      {
        const std::scoped_lock lock(mutex);
        result.emplace(std::move(outcome));
        waiting.swap(callbacks);
      }
      changed.notify_all();
      for (const auto& callback : waiting) callback(*result);
    }
  };

  struct Holder {
    std::shared_ptr<State> state = std::make_shared<State>();
    std::thread thread;

    Holder() = default;
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;
    ~Holder() {
      if (!thread.joinable()) return;
      // A callback may drop the last copy: the thread is past its work then, and cannot wait for
      // itself.
      if (thread.get_id() == std::this_thread::get_id()) {
        thread.detach();
      } else {
        thread.join();
      }
    }
  };

  static Result<T> outcome_of(const std::function<Result<T>()>& work) {
    try {
      return work();
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::kLimit, "out of memory");
    } catch (const std::exception& exception) {
      return fail(ErrorCode::kInvalidArgument, exception.what());
    }
  }

  std::shared_ptr<Holder> holder_;
};

}  // namespace stepstone
