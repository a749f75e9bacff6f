#pragma once
// Everything a C++ trainer needs: `#include <stepstone/stepstone.h>`.

#include "args.h"
#include "array.h"
#include "checkpoint_manager.h"
#include "checkpointer.h"
#include "statistics.h"
#include "storage_options.h"
#include "tree.h"
