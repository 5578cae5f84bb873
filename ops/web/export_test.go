package web

// Feeds is the number of runs that are polled.
func (s *Server) Feeds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.feeds)
}
