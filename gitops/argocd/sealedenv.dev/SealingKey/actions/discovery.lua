local deleting = obj.metadata.deletionTimestamp ~= nil
local status = obj.status or {}

-- While one rotation waits to be served, another would only make one key more.
local rotation = (obj.metadata.annotations or {})["sealedenv.dev/rotate"]
local waiting = rotation ~= nil and rotation ~= "" and rotation ~= status.lastHandledRotation
local keyless = status.current == nil

return {
  ["reconcile"] = { ["disabled"] = deleting },
  ["rotate"] = { ["disabled"] = deleting or waiting or keyless },
}
