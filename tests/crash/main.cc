// The test program, which is also its own child: `crash_test --child NAME ARGUMENTS...`.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "tests/crash/settings.h"

int main(int argc, char** argv) {
  if (argc > 2 && std::string(argv[1]) == "--child") {
    const std::string name = argv[2];
    const std::vector<std::string> arguments(argv + 3, argv + argc);
    if (name == "save") return stepstone::run_saving_child(arguments);
    if (name == "flip") return stepstone::run_flipping_child(arguments);
    if (name == "export") return stepstone::run_exporting_child(arguments);
    if (name == "force") return stepstone::run_forcing_child(arguments);
    std::fprintf(stderr, "no such child: %s\n", name.c_str());
    return 2;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
