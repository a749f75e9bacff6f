#pragma once
// Everything a C++ trainer needs: `#include <stepstone/stepstone.h>`.

#include "any_value.h"
#include "args.h"
#include "array.h"
#include "checkpoint_handler.h"
#include "checkpoint_manager.h"
#include "checkpointer.h"
#include "composite.h"
#include "handler_registry.h"
#include "handlers.h"
#include "item_metadata.h"
#include "leaf_args.h"
#include "stateful.h"
#include "statistics.h"
#include "storage_options.h"
#include "tree.h"
