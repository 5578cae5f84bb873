package worker

import "errors"

// Close lets another worker of this process take the scratch folder. A worker's ends with its process.
func (h *Handler) Close() error { return errors.Join(h.scratch.empty(), h.scratch.lock.Close()) }
