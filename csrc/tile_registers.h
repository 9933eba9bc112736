// The tile registers of Intel's matrix unit (AMX), which a process has to ask Linux for.
#pragma once

namespace twolayer {

// Whether this processor has AMX's bfloat16 products and this process may use them. The first call
// asks for the permission, which holds for all threads and for the children that a fork makes.
bool may_use_tile_registers();

}  // namespace twolayer
