#include "launch/start_limit.h"

#include <utility>

namespace caravan {

StartLimit::StartLimit(std::chrono::seconds limit, std::function<void()> on_late)
    : thread_([this, limit, on_late = std::move(on_late)](const std::stop_token& in_time) {
        std::unique_lock lock(mutex_);
        wake_.wait_for(lock, in_time, limit, [] { return false; });
        if (!in_time.stop_requested()) on_late();
      }) {}

}  // namespace caravan
