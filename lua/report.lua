-- SPDX-License-Identifier: MIT
-- The reply: content, what has yet to leak, in 1/drops us, or -1 - content where success is 0. Level, waits and all
-- else follow from it and the limit. One integer is much cheaper for the server than any array, so only the rare cases
-- (blocked; a clock that stepped; a phase below zero) get {success + 2 * stepped, level, phase, blocked_for}.
if blocked > 0 or stepped > 0 or phase < 0 then
  return {success + stepped, level, phase, blocked > 0 and blocked - now or 0}
end
if success == 1 then return level * recharge - phase end
return phase - level * recharge - 1
