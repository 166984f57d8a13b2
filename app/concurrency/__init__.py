"""asyncio machinery: background tasks, batches, bulkheads, deadlines, guards, request coalescing."""
