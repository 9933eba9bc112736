// The former name of threads.h.
#pragma once

#include "threads.h"
