#include "api/any_value.h"

#include <cxxabi.h>

#include <cstdlib>

namespace stepstone {

std::string type_name_of(const std::type_index& type) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> name(
      abi::__cxa_demangle(type.name(), nullptr, nullptr, &status), &std::free);
  return name == nullptr ? type.name() : name.get();
}

}  // namespace stepstone
