"""One writer per public layout. Each takes ``Capture`` objects, made by Mitsuba or by closed-form ray casting alike."""
