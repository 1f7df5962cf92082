#include "runtime/error.h"

namespace caravan {

Error config_error(const std::string& message) { return Error(ExitCode::config, message); }
Error data_error(const std::string& message) { return Error(ExitCode::data, message); }
Error checkpoint_error(const std::string& message) { return Error(ExitCode::checkpoint, message); }
Error internal_error(const std::string& message) { return Error(ExitCode::internal, message); }

}  // namespace caravan
