local deleting = obj.metadata.deletionTimestamp ~= nil
local suspended = obj.spec ~= nil and obj.spec.suspend == true
return {
  ["reconcile"] = { ["disabled"] = deleting or suspended },
  ["suspend"] = { ["disabled"] = deleting or suspended },
  ["resume"] = { ["disabled"] = deleting or not suspended },
}
