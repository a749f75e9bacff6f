// A program outside the project: knows nothing but the installed package.
#include <stepstone/stepstone.h>

#include <iostream>

int main() {
  using namespace stepstone;
  const Tree saved = Tree::dict({{"step", 7}, {"note", "from outside"}});
  const Result<void> save = Checkpointer().save("checkpoint", args::StandardSave(saved));
  const Result<Tree> restored = Checkpointer().restore("checkpoint");
  if (!save) std::cerr << save.error().message << '\n';
  return save && restored && *restored == saved ? 0 : 1;
}
